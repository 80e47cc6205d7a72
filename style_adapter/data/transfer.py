"""Rows of `source`, `target` and `style`: tokenised once, collated into one batch for the game."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..functional import IGNORED
from .clock import RowSeeds, chosen_rows
from .pool import StylePool
from .rows import is_worse
from .tokens import (
    Columns,
    StyleEncoding,
    closed_ids,
    pad,
    prompt_ids,
    token_weights,
    tokenized_rows,
    with_targets,
)


def tokenize_transfer(
    dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, *, prompt: str, max_length: int = 512
) -> datasets.Dataset:
    """Columns `prompt_ids`, `target_ids` (closed by the end-of-text token), `style`, `row_id`, `length`, and some more.

    `synthetic` only where `dataset` says which targets a program made, and `rejected_ids` where it has worse targets
    for comparison; an empty one, or one that is the target itself, compares nothing and has no ids.

    Raises:
        ValueError: A row longer than `max_length` tokens: nothing is cut off silently. A tokenizer without an
            end-of-text token.
    """

    def encode(batch: Mapping[str, list[Any]], rows: list[int]) -> Columns:
        prompts = prompt_ids(tokenizer, prompt, batch["source"])
        columns = {"prompt_ids": prompts, "target_ids": closed_ids(tokenizer, batch["target"])}
        if "rejected" in batch:
            ids = closed_ids(tokenizer, [text or "" for text in batch["rejected"]])
            kept = map(is_worse, batch["rejected"], batch["target"])
            columns["rejected_ids"] = [row if worse else [] for row, worse in zip(ids, kept, strict=True)]
        return columns | ({"synthetic": batch["synthetic"]} if "synthetic" in batch else {})

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
        pool: Texts by style that people wrote. With it the discriminator compares with one of them where a target is
            synthetic, so that the generator is drawn to real texts, not to the hand of the program.
        label_styles: A list of styles -> their labels, for the pool; `StyleBank.labels`.
    """

    pad_token_id: int
    encode_styles: StyleEncoding
    draws: RowSeeds = field(default_factory=RowSeeds)
    fraction: float = 1.0
    novel_weight: float = 1.0
    decoder_only: bool = True
    pool: StylePool | None = None
    label_styles: Any = None

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
            **self._real(rows),
            **self._rejected(rows),
        }

    def _rejected(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`preferred`, which rows have a worse target, and the teacher-forced pass of those: "rejected_" and a name."""
        if "rejected_ids" not in rows[0]:
            return {}
        compared = [row for row in rows if row["rejected_ids"]]
        preferred = torch.tensor([bool(row["rejected_ids"]) for row in rows])
        if not compared:
            return {"preferred": preferred}
        prompts, targets = [row["prompt_ids"] for row in compared], [row["rejected_ids"] for row in compared]
        passed = with_targets(prompts, targets, self.pad_token_id, decoder_only=self.decoder_only)
        return {"preferred": preferred, **{f"rejected_{name}": tensor for name, tensor in passed.items()}}

    def _real(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`real_labels` and `real_ids` of texts by people, where some targets are not: a row's own, or one drawn."""
        if self.pool is None:
            return {}
        labels = self.label_styles([row["style"] for row in rows])
        real = [
            self.pool.exemplar(label, self.draws(row, "real"))
            if row["synthetic"] and label in self.pool.texts
            else row["row_id"]
            for row, label in zip(rows, labels, strict=True)
        ]
        return {"real_labels": pad([self.pool.targets[i] for i in real], IGNORED), "real_ids": torch.tensor(real)}
