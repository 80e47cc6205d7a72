"""Rows of `text` and `style`: what rewriting is learnt from where no text has a counterpart in another style.

Each row gives a lesson, prompt(corrupt(x)) -> x in its own style, and a task, prompt(x) in another style, beside a real
text of that other style. What is drawn for a row is a pure function of (seed, epoch, row id).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..functional import IGNORED
from ..seeds import generator_of
from .clock import RowSeeds, chosen_rows
from .pool import StylePool
from .tokens import StyleEncoding, pad, pad_and_mask, prompt_ids, token_weights, with_targets
from .transfer import tokenize_transfer


def tokenize_unpaired(
    dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, *, prompt: str, max_length: int = 512
) -> datasets.Dataset:
    """The columns of `tokenize_transfer` for texts that are their own targets, and `text`."""
    texts = list(dataset["text"])
    pairs = dataset.select_columns(["text", "style"]).rename_column("text", "source").add_column("target", texts)
    return tokenize_transfer(pairs, tokenizer, prompt=prompt, max_length=max_length).add_column("text", texts)


@dataclass(frozen=True)
class EitherCollator:
    """Unpaired texts to train on and paired ones to evaluate on, or the other way: the columns of the rows decide."""

    unpaired: Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]]
    paired: Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch."""
        return (self.unpaired if "text" in rows[0] else self.paired)(rows)


@dataclass(frozen=True)
class UnpairedCollator:
    """Rows of `tokenize_unpaired` -> one batch for the game.

    Args:
        tokenizer: Reads corrupted texts.
        prompt: Around each source text.
        pad_token_id: Fills both sides; masked out.
        encode_styles: A list of styles -> ids and weights [rows, slots]; `StyleBank.code` behind it.
        label_styles: A list of styles -> their labels; `StyleBank.labels`.
        pool: The training texts by style.
        corruption: (text, generator, style=label) -> what the text is rebuilt from; see `corruption.Corruption`.
        draws: The seeds of each row.
        fraction: Share of the rows that are rewritten in another style, judged and translated back.
        novel_weight: Weight of target tokens that the corrupted text does not hold.
        decoder_only: False keeps source and target apart, as encoder-decoders take them.
    """

    tokenizer: PreTrainedTokenizerBase
    prompt: str
    pad_token_id: int
    encode_styles: StyleEncoding
    label_styles: Any
    pool: StylePool
    corruption: Callable[..., str]
    draws: RowSeeds = field(default_factory=RowSeeds)
    fraction: float = 1.0
    novel_weight: float = 1.0
    decoder_only: bool = True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of the lesson (as `TransferCollator`), and the task: `source_*`, `wanted_*`, `real_*`."""
        labels = self.label_styles([row["style"] for row in rows])
        corrupted = [self._corrupted(row, label) for row, label in zip(rows, labels, strict=True)]
        wanted = [self.pool.other(label, self.draws(row, "wanted")) for row, label in zip(rows, labels, strict=True)]
        real = [self.pool.exemplar(label, self.draws(row, "real")) for row, label in zip(rows, wanted, strict=True)]
        targets = [row["target_ids"] for row in rows]
        source, source_mask = pad_and_mask(
            [row["prompt_ids"] for row in rows], self.pad_token_id, left=self.decoder_only
        )
        style_ids, style_weights = self.encode_styles([row["style"] for row in rows])
        wanted_ids, wanted_weights = self.encode_styles([self.pool.styles[label] for label in wanted])
        seeds = self.draws.of(rows)
        return {
            **with_targets(corrupted, targets, self.pad_token_id, decoder_only=self.decoder_only),
            "token_weights": token_weights(corrupted, targets, self.novel_weight),
            "style_ids": style_ids,
            "style_weights": style_weights,
            "source_ids": source,
            "source_mask": source_mask,
            "wanted_ids": wanted_ids,
            "wanted_weights": wanted_weights,
            "real_labels": pad([self.pool.targets[row] for row in real], IGNORED),
            "real_ids": torch.tensor(real),
            "row_ids": torch.tensor([row["row_id"] for row in rows]),
            "seeds": seeds,
            "judged": chosen_rows(seeds, self.fraction),
        }

    def _corrupted(self, row: Mapping[str, Any], label: str) -> list[int]:
        """Token ids of the prompt around the corrupted text."""
        text = self.corruption(row["text"], generator_of(self.draws(row, "corruption")), style=label)
        return prompt_ids(self.tokenizer, self.prompt, [text])[0]
