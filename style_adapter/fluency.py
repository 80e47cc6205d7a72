"""How likely the frozen backbone finds a text: the fluency in J."""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ._peft import PREFIX
from .data import pad, pad_and_mask, plain_ids
from .functional import IGNORED
from .losses import token_cross_entropy
from .metrics import relative_fluency
from .model import head_reads, styled
from .style import OFF


@dataclass(frozen=True)
class BackboneScorer:
    """l(y) = 1/T sum_t log p(y_t | y_<t), p the backbone with the style OFF: no second model is loaded.

    The first token is read after the token that opens a text, or, where the tokenizer has none, the one that ends it.

    Attributes:
        model: A causal model with a style adapter.
        tokenizer: The backbone's.
        batch_size: Texts read at once; they are sorted by length, so padding is small.
        remembered: l of the sources met so far, which are the same at each evaluation.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 32
    remembered: MutableMapping[str, float] = field(default_factory=dict)

    def fluency(self, outputs: Sequence[str], sources: Sequence[str]) -> Float[np.ndarray, " lines"]:
        """min(1, exp(l(y_i) - l(x_i))) of each output y and its source x; 1 where the backbone is no causal model."""
        if not _predicts_the_next(self.model):
            return np.ones(len(outputs))
        known = self.remembered if _stays(self.model) else {}
        new = [source for source in dict.fromkeys(sources) if source not in known]
        scores = self.log_likelihoods([*outputs, *new])  # one pass over both
        known.update(zip(new, scores[len(outputs) :].tolist(), strict=True))
        return relative_fluency(scores[: len(outputs)], np.array([known[source] for source in sources]))

    def log_likelihoods(self, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """l of each text, without gradient or dropout; -inf for an empty one."""
        ids = plain_ids(self.tokenizer, texts) if texts else []
        scores = np.full(len(texts), -np.inf)
        order = sorted((i for i in range(len(texts)) if ids[i]), key=lambda i: len(ids[i]))
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), styled(self.model, OFF):
                for rows in (order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)):
                    scores[rows] = self._batch([ids[i] for i in rows]).double().cpu().numpy()
        finally:
            self.model.train(training)
        return scores

    def _batch(self, ids: Sequence[Sequence[int]]) -> Float[Tensor, " batch"]:
        """l of each row of tokens."""
        tokenizer, device = self.tokenizer, self.model.device
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        inputs, mask = pad_and_mask([[start, *row] for row in ids], start)  # on the right: no row sees its padding
        targets = pad(ids, IGNORED).to(device)
        kept = targets != IGNORED  # [batch, seq]
        with head_reads(self.model, lambda hidden: hidden[:, :-1][kept]):  # the token before predicts
            logits = self.model(
                input_ids=inputs.to(device), attention_mask=mask.to(device), use_cache=False
            ).logits  # [tokens, vocab]
        per_token = token_cross_entropy(logits[:, None], targets[kept][:, None])
        return -per_token.new_zeros(len(ids)).index_add(0, kept.nonzero()[:, 0], per_token) / kept.sum(dim=1)


def _predicts_the_next(model: PeftModel) -> bool:
    """Whether the backbone gives each token a probability from those before it."""
    base: Any = model.get_base_model()
    return base.can_generate() and not base.config.is_encoder_decoder


def _stays(model: PeftModel) -> bool:
    """Whether training leaves the backbone alone, so that what it finds likely stays what it was."""
    return not any(p.requires_grad and PREFIX not in name for name, p in model.named_parameters())
