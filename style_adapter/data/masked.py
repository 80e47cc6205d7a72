"""Rows of `text`: tokenised once, masked anew in each epoch, for encoders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..seeds import generator_of
from .classification import ClassificationCollator
from .clock import RowSeeds
from .tokens import Columns, tokenized_rows

Masking = Callable[[Sequence[int], torch.Generator], tuple[list[int], list[int]]]


def tokenize_masked(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    default_style: str | None = None,
    max_length: int = 512,
) -> datasets.Dataset:
    """Columns `input_ids`, `style`, `row_id` and `length`; rows without a style get the default one.

    Raises:
        ValueError: A row longer than `max_length` tokens, or a tokenizer without a token that masks.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError(
            "tokenizer.mask_token=None must be a token: masked_lm is for encoders; set tokenizer.mask_token, or take "
            "task='generation' for a decoder"
        )

    def encode(batch: Mapping[str, list[Any]], rows: list[int]) -> Columns:
        return {"input_ids": tokenizer(batch["text"])["input_ids"]}

    return tokenized_rows(dataset, encode, max_length=max_length, default_style=default_style)


@dataclass(frozen=True)
class MaskedCollator:
    """Rows of `tokenize_masked` -> one batch for the game, with other masks in each epoch.

    The masks of a row are a pure function of (seed, epoch, row id): neither its batch nor its worker changes them.

    Args:
        collate: Makes the batch of masked rows.
        mask: (ids, generator) -> (ids with masks, labels); `corruption.mask_tokens` behind it.
        draws: The seeds of each row.
    """

    collate: ClassificationCollator
    mask: Masking
    draws: RowSeeds = field(default_factory=RowSeeds)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch: `input_ids`, `attention_mask` and `labels` [batch, seq], styles."""
        return self.collate([self._masked(row) for row in rows])

    def _masked(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its masks of this epoch, and a label where there is something to tell."""
        ids, labels = self.mask(row["input_ids"], generator_of(self.draws(row, "mask")))
        return {**row, "input_ids": ids, "label": labels}
