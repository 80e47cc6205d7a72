"""Texts sorted into classes."""

from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from ..data import pad_and_mask
from .batches import evaluating, pad_id, rows_of


def classify(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    styles: Any = None,
    *,
    text_pairs: Sequence[str] | None = None,
    batch_size: int = 32,
) -> list[int]:
    """The most likely class of each text by the model's head; `styles` as in `transfer`, None for the default."""
    per_row = rows_of(model, styles, len(texts))
    found: list[int] = []
    with evaluating(model):
        for i in range(0, len(texts), batch_size):
            rows = slice(i, i + batch_size)
            pairs = None if text_pairs is None else list(text_pairs[rows])
            ids, mask = pad_and_mask(tokenizer(list(texts[rows]), pairs)["input_ids"], pad_id(tokenizer))
            logits = model(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), styles=per_row[rows]
            ).logits
            found += logits.argmax(dim=-1).tolist()
    return found
