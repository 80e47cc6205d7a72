"""Rows of `source`, `target` and `style`: tokenised once, collated into one batch for the game."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..functional import IGNORED
from .tokens import StyleEncoding, check_lengths, chosen_rows, fill_prompt, pad, pad_and_mask, plain_ids


def tokenize_transfer(
    dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, *, prompt: str, max_length: int = 512
) -> datasets.Dataset:
    """Columns `prompt_ids`, `target_ids` (closed by the end-of-text token), `style`, `row_id` and `length`.

    Raises:
        ValueError: A row longer than `max_length` tokens: nothing is cut off silently. A tokenizer without an
            end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("tokenizer.eos_token=None must be a token: it ends each target; set tokenizer.eos_token")

    def convert(batch: Mapping[str, list[Any]], rows: list[int]) -> dict[str, list[Any]]:
        prompts = tokenizer([fill_prompt(prompt, s) for s in batch["source"]])["input_ids"]
        targets = [[*ids, tokenizer.eos_token_id] for ids in plain_ids(tokenizer, batch["target"])]
        lengths = [len(p) + len(t) for p, t in zip(prompts, targets, strict=True)]
        check_lengths(rows, lengths, max_length)
        return {
            "prompt_ids": prompts,
            "target_ids": targets,
            "style": batch["style"],
            "row_id": rows,
            "length": lengths,
        }

    return dataset.map(convert, batched=True, with_indices=True, remove_columns=dataset.column_names, desc="Tokenizing")


@dataclass(frozen=True)
class TransferCollator:
    """Rows of `tokenize_transfer` -> one batch for the game.

    Prompts are padded on the left and targets on the right, so that all targets stand in the same columns and the
    head over the vocabulary runs on those alone.

    Args:
        pad_token_id: Fills both sides; masked out.
        encode_styles: A list of styles -> ids and weights [rows, slots]; `StyleBank.code` behind it.
        fraction: Share of the rows that the discriminator sees.
        novel_weight: Weight of target tokens that the prompt does not hold: where style changes, and not the copy.
        decoder_only: False keeps source and target apart, as encoder-decoders take them.
    """

    pad_token_id: int
    encode_styles: StyleEncoding
    fraction: float = 1.0
    novel_weight: float = 1.0
    decoder_only: bool = True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch: `input_ids` [batch, prompt + target], `attention_mask`, `labels` [batch, target], styles."""
        prompts, mask = pad_and_mask([row["prompt_ids"] for row in rows], self.pad_token_id, left=self.decoder_only)
        labels = pad([row["target_ids"] for row in rows], IGNORED)
        if self.decoder_only:
            targets = labels.masked_fill(labels == IGNORED, self.pad_token_id)
            prompts = torch.cat([prompts, targets], dim=1)
            mask = torch.cat([mask, (labels != IGNORED).long()], dim=1)
        ids, weights = self.encode_styles([row["style"] for row in rows])
        row_ids = torch.tensor([row["row_id"] for row in rows])
        return {
            "input_ids": prompts,
            "attention_mask": mask,
            "labels": labels,
            "token_weights": torch.stack([self._token_weights(row, labels.shape[1]) for row in rows]),
            "style_ids": ids,
            "style_weights": weights,
            "row_ids": row_ids,
            "judged": chosen_rows(row_ids, self.fraction),
        }

    def _token_weights(self, row: Mapping[str, Any], width: int) -> Float[Tensor, " target"]:
        """1 for a token that the prompt holds too, `novel_weight` for another, 0 for padding."""
        known = set(row["prompt_ids"])
        weights = [1.0 if token in known else self.novel_weight for token in row["target_ids"]]
        return torch.tensor(weights + [0.0] * (width - len(weights)))
