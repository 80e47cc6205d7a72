"""Texts, or their words, sorted into classes."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..bars import in_batches
from ..data import align_words, pad_and_mask, words_of
from ..model import Strength
from ..style import Style
from .batches import evaluating, pad_id, rows_of


def classify(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    styles: Any = None,
    *,
    strength: Strength = 1.0,
    text_pairs: Sequence[str] | None = None,
    batch_size: int = 32,
) -> list[int]:
    """The most likely class of each text by the model's head; `styles` and `strength` as in `transfer`."""
    per_row = rows_of(model, styles, len(texts))
    found: list[int] = []
    with evaluating(model):
        for rows in in_batches(range(len(texts)), batch_size, "classifying"):
            pairs = None if text_pairs is None else [text_pairs[i] for i in rows]
            ids = tokenizer([texts[i] for i in rows], pairs)["input_ids"]
            found += _classes(model, tokenizer, ids, [per_row[i] for i in rows], strength).tolist()
    return found


def tag(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | Sequence[str]],
    styles: Any = None,
    *,
    strength: Strength = 1.0,
    batch_size: int = 32,
) -> list[list[int]]:
    """The most likely class of each word of each text by the model's head, read at the word's first token.

    Args:
        model: A model with a style adapter and a head that sorts tokens.
        tokenizer: The backbone's; a fast one.
        texts: Each a list of words, or a text whose words white space separates.
        styles: As in `transfer`; None for the default.
        strength: As in `transfer`.
        batch_size: Texts a step; they are sorted by length, so padding is small.

    Raises:
        ValueError: A word without a token of its own, or a tokenizer that cannot tell.
    """
    per_row = rows_of(model, styles, len(texts))
    ids, firsts = align_words(tokenizer, [*map(words_of, texts)])
    order = sorted((i for i, words in enumerate(firsts) if words), key=lambda i: len(ids[i]))
    found: list[list[int]] = [[] for _ in texts]
    with evaluating(model):
        for rows in in_batches(order, batch_size, "tagging"):
            classes = _classes(model, tokenizer, [ids[i] for i in rows], [per_row[i] for i in rows], strength)
            for i, of_tokens in zip(rows, classes, strict=True):
                found[i] = of_tokens[firsts[i]].tolist()
    return found


def _classes(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int]],
    styles: Sequence[Style],
    strength: Strength,
) -> Int[Tensor, "batch ..."]:
    """The most likely class of each row of one batch, or of each of its tokens."""
    ids, mask = pad_and_mask(rows, pad_id(tokenizer))
    batch = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    logits = model(**batch, styles=list(styles), style_strength=strength).logits
    return logits.argmax(dim=-1).cpu()
