"""How likely a model finds the rewrites of texts, its own or anybody's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..bars import in_batches
from ..data import closed_ids, prompt_ids, with_targets
from ..functional import IGNORED
from ..losses import token_cross_entropy
from ..model import styled, target_logits
from ..style import Style
from .batches import evaluating, pad_id, prompt_of, rows_of


def log_likelihoods(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    outputs: Sequence[str],
    styles: Any = None,
    *,
    batch_size: int = 64,
) -> Float[np.ndarray, " pairs"]:
    """1/T sum_t log p(y_t | y_<t, x, s) of each output y of T tokens, the one that ends it among them.

    Args:
        model: A model with a style adapter, trained to rewrite.
        tokenizer: The backbone's.
        sources: x.
        outputs: y.
        styles: One style for all, or one a pair; the default style if left out.
        batch_size: Pairs read at once; they are sorted by length, so padding is small.

    Raises:
        ValueError: Columns of unequal length, or a style that the adapter lacks.
    """
    if len(sources) != len(outputs):
        raise ValueError(
            f"outputs of length {len(outputs)} must be as long as sources, {len(sources)}; give a pair each"
        )
    per_row = rows_of(model, styles, len(sources))
    prompts, targets = prompt_ids(tokenizer, prompt_of(model), sources), closed_ids(tokenizer, outputs)
    order = sorted(range(len(sources)), key=lambda i: len(prompts[i]) + len(targets[i]))
    found = np.zeros(len(sources))
    with evaluating(model):
        for rows in in_batches(order, batch_size, "reading"):
            batch = with_targets(
                [prompts[i] for i in rows],
                [targets[i] for i in rows],
                pad_id(tokenizer),
                decoder_only=not model.config.is_encoder_decoder,
            )
            found[rows] = _likelihoods(model, batch, [per_row[i] for i in rows]).double().cpu().numpy()
    return found


def _likelihoods(model: PeftModel, batch: dict[str, Tensor], styles: Sequence[Style]) -> Float[Tensor, " batch"]:
    """The mean log-likelihood of the labels of each row."""
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels = inputs["labels"]
    mask = labels != IGNORED
    with styled(model, [*styles]):
        logits = target_logits(model, **inputs, mask=mask, decoder_only=not model.config.is_encoder_decoder)
    losses = token_cross_entropy(logits.float()[:, None], labels[mask][:, None])
    return -losses.new_zeros(len(labels)).index_add(0, mask.nonzero()[:, 0], losses) / mask.sum(1)
