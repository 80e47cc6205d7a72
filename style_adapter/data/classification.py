"""Rows of `text` (and `text_pair`) and `label`: tokenised once; and the batch of every task of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..functional import IGNORED
from .clock import RowSeeds
from .tokens import Columns, StyleEncoding, pad, pad_and_mask, tokenized_rows


def tokenize_classification(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    default_style: str | None = None,
    max_length: int = 512,
) -> datasets.Dataset:
    """Columns `input_ids`, `label`, `style`, `row_id` and `length`; rows without a style get the default one.

    Raises:
        ValueError: A row longer than `max_length` tokens: nothing is cut off silently.
    """

    def encode(batch: Mapping[str, list[Any]], rows: list[int]) -> Columns:
        ids = tokenizer(batch["text"], batch.get("text_pair"))["input_ids"]
        return {"input_ids": ids, "label": batch["label"]}

    return tokenized_rows(dataset, encode, max_length=max_length, default_style=default_style)


@dataclass(frozen=True)
class ClassificationCollator:
    """Rows with `input_ids` and `label` -> one batch for the game, padded on the right.

    A label is a class, or a list with one a token, -100 where there is none.

    Args:
        pad_token_id: Fills the right side; masked out.
        encode_styles: A list of styles -> ids and weights [rows, slots]; `StyleBank.code` behind it.
        draws: The seeds of each row.
    """

    pad_token_id: int
    encode_styles: StyleEncoding
    draws: RowSeeds = field(default_factory=RowSeeds)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch: `input_ids` and `attention_mask` [batch, seq], `labels` [batch] or [batch, seq], styles."""
        ids, mask = pad_and_mask([row["input_ids"] for row in rows], self.pad_token_id)
        style_ids, weights = self.encode_styles([row["style"] for row in rows])
        labels = [row["label"] for row in rows]
        row_ids = torch.tensor([row["row_id"] for row in rows])
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": pad(labels, IGNORED) if isinstance(labels[0], list) else torch.tensor(labels),
            "style_ids": style_ids,
            "style_weights": weights,
            "row_ids": row_ids,
            "seeds": self.draws.of(rows),
            "judged": torch.zeros_like(row_ids, dtype=torch.bool),
        }
