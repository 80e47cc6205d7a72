"""Rows of `source`, `target` and `style`: tokenised once, collated into one batch for the game."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .clock import RowSeeds, chosen_rows
from .tokens import (
    Columns,
    StyleEncoding,
    closed_ids,
    prompt_ids,
    token_weights,
    tokenized_rows,
    with_targets,
)


def tokenize_transfer(
    dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, *, prompt: str, max_length: int = 512
) -> datasets.Dataset:
    """Columns `prompt_ids`, `target_ids` (closed by the end-of-text token), `style`, `row_id` and `length`.

    Raises:
        ValueError: A row longer than `max_length` tokens: nothing is cut off silently. A tokenizer without an
            end-of-text token.
    """

    def encode(batch: Mapping[str, list[Any]], rows: list[int]) -> Columns:
        prompts = prompt_ids(tokenizer, prompt, batch["source"])
        return {"prompt_ids": prompts, "target_ids": closed_ids(tokenizer, batch["target"])}

    return tokenized_rows(dataset, encode, max_length=max_length)


@dataclass(frozen=True)
class TransferCollator:
    """Rows of `tokenize_transfer` -> one batch for the game, laid out by `with_targets`.

    Args:
        pad_token_id: Fills both sides; masked out.
        encode_styles: A list of styles -> ids and weights [rows, slots]; `StyleBank.code` behind it.
        draws: The seeds of each row.
        fraction: Share of the rows that the discriminator sees.
        novel_weight: Weight of target tokens that the prompt does not hold: where style changes, and not the copy.
        decoder_only: False keeps source and target apart, as encoder-decoders take them.
    """

    pad_token_id: int
    encode_styles: StyleEncoding
    draws: RowSeeds = field(default_factory=RowSeeds)
    fraction: float = 1.0
    novel_weight: float = 1.0
    decoder_only: bool = True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch: `input_ids` [batch, prompt + target], `attention_mask`, `labels` [batch, target], styles."""
        prompts, targets = [row["prompt_ids"] for row in rows], [row["target_ids"] for row in rows]
        ids, weights = self.encode_styles([row["style"] for row in rows])
        seeds = self.draws.of(rows)
        return {
            **with_targets(prompts, targets, self.pad_token_id, decoder_only=self.decoder_only),
            "token_weights": token_weights(prompts, targets, self.novel_weight),
            "style_ids": ids,
            "style_weights": weights,
            "row_ids": torch.tensor([row["row_id"] for row in rows]),
            "seeds": seeds,
            "judged": chosen_rows(seeds, self.fraction),
        }
