"""Texts rewritten in a style."""

from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..bars import in_batches
from ..data import prompt_ids
from ..model import Strength, head_reads
from .batches import continued, evaluating, prompt_of, rows_of


def transfer(  # noqa: PLR0913 - one option a way to decode
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    styles: Any = None,
    *,
    strength: Strength = 1.0,
    batch_size: int = 32,
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    length_penalty: float = 1.0,
) -> list[str]:
    """Each source rewritten in its style, in the order given; greedy, or by beams.

    Args:
        model: A model with a style adapter.
        tokenizer: The backbone's.
        sources: Texts; empty ones come back as they are.
        styles: One style for all, or one a source; anything `StyleBank.parse` takes; the default style if left out.
        strength: A factor on the style, one for all layers or by block, such as {"layers.0-11": 0.5}.
        batch_size: Texts a step; they are sorted by length, so padding is small.
        max_new_tokens: Bound of a rewrite; by default one and a half times the longest source of its step, and some.
        num_beams: Beams of the search; 1 is greedy.
        length_penalty: q of what beams are ranked by, log p(y | x, s) / |y|^q; 0 favours short rewrites, as p does.

    Raises:
        ValueError: A style that the adapter lacks, or as many styles as neither 1 nor the number of sources.
    """
    per_row = rows_of(model, styles, len(sources))
    prompts = prompt_ids(tokenizer, prompt_of(model), sources)
    order = sorted((i for i, s in enumerate(sources) if s.strip()), key=lambda i: len(prompts[i]))
    results = list(sources)
    beams: dict[str, Any] = {"length_penalty": length_penalty} if num_beams > 1 else {}
    with evaluating(model), head_reads(model, Tensor.contiguous):
        for rows in in_batches(order, batch_size, "rewriting"):
            texts = continued(
                model,
                tokenizer,
                [prompts[i] for i in rows],
                styles=[per_row[i] for i in rows],
                strength=strength,
                max_new_tokens=max_new_tokens,
                num_beams=num_beams,
                **beams,
            )
            for i, text in zip(rows, texts, strict=True):
                results[i] = text
    return results
