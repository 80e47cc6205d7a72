"""How likely a language model finds a text: perplexity, and the fluency in J."""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ..bars import in_batches
from .joint import relative_fluency


@dataclass(frozen=True)
class LanguageScorer:
    """sum_t log p(y_t | y_<t) of texts y under a frozen causal language model p.

    The first token is read after the token that opens a text, or, where the tokenizer has none, the one that ends it;
    the end itself is not scored.

    Attributes:
        model: A causal language model.
        tokenizer: Its tokenizer.
        batch_size: Texts read at once; they are sorted by length, so padding is small.
        remembered: The mean log-likelihood of the sources met so far, which are the same at each evaluation.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 32
    remembered: MutableMapping[str, float] = field(default_factory=dict)

    @property
    def reads(self) -> bool:
        """Whether the model gives each token a probability from those before it."""
        return True

    @classmethod
    def load(cls, model: str | Path, *, batch_size: int = 32) -> "LanguageScorer":
        """The causal language model in a folder or on the hub."""
        from transformers import AutoModelForCausalLM, AutoTokenizer  # imports much of transformers

        loaded = AutoModelForCausalLM.from_pretrained(str(model))
        return cls(loaded.eval(), AutoTokenizer.from_pretrained(str(model)), batch_size)

    def fluency(self, outputs: Sequence[str], sources: Sequence[str]) -> Float[np.ndarray, " lines"]:
        """min(1, exp(l(y_i) - l(x_i))) of each output y and its source x, l as `log_likelihoods` gives it."""
        known = self.remembered
        new = [source for source in dict.fromkeys(sources) if source not in known]
        scores = self.log_likelihoods([*outputs, *new])  # one pass over both
        known.update(zip(new, scores[len(outputs) :].tolist(), strict=True))
        return relative_fluency(scores[: len(outputs)], np.array([known[source] for source in sources]))

    def log_likelihoods(self, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """l(y) = 1/T sum_t log p(y_t | y_<t) of each text; -inf for an empty one."""
        sums, tokens = self.sums(texts).T
        return np.divide(sums, tokens, out=np.full(len(texts), -np.inf), where=tokens > 0)

    def sums(self, texts: Sequence[str]) -> Float[np.ndarray, "texts 2"]:
        """(sum_t log p(y_t | y_<t), T) of each text, without gradient or dropout; (0, 0) for an empty one."""
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        found = np.array([[0.0, len(row)] for row in ids]).reshape(-1, 2)
        order = sorted((i for i in range(len(texts)) if ids[i]), key=lambda i: len(ids[i]))
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self._reading():
                for rows in in_batches(order, self.batch_size, "reading"):
                    found[rows, 0] = self._batch([ids[i] for i in rows]).double().cpu().numpy()
        finally:
            self.model.train(training)
        return found

    def _batch(self, ids: Sequence[Sequence[int]]) -> Float[Tensor, " batch"]:
        """The log-likelihood of each row of tokens."""
        tokenizer, device = self.tokenizer, self.model.device
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        # Padded on the right: no row sees its padding.
        inputs = pad_sequence([torch.tensor([start, *row]) for row in ids], batch_first=True, padding_value=start)
        kept = pad_sequence([torch.ones(len(row) + 1) for row in ids], batch_first=True).bool()  # [batch, 1 + seq]
        inputs, kept = inputs.to(device), kept.to(device)
        targets = inputs[:, 1:][kept[:, 1:]]  # [tokens]
        losses = F.cross_entropy(self._logits(inputs, kept).float(), targets, reduction="none")
        return -losses.new_zeros(len(ids)).index_add(0, kept[:, 1:].nonzero()[:, 0], losses)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What the model needs around it while it reads."""
        yield

    def _logits(
        self, inputs: Int[Tensor, "batch seq"], kept: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, "tokens vocab"]:
        """For each kept token but the first of a row, the logits of the token before, which predict it."""
        model: nn.Module = self.model
        return model(input_ids=inputs, attention_mask=kept.long(), use_cache=False).logits[:, :-1][kept[:, 1:]]
