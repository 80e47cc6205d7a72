"""Rows of `text` and `style`: what rewriting is learnt from where no text has a counterpart in another style.

Each row gives a lesson, prompt(corrupt(x)) -> x in its own style, and a task, prompt(x) in another style, beside a real
text of that other style. What is drawn for a row is a pure function of (seed, epoch, row id).
"""

from collections import defaultdict
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
class StylePool:
    """The texts of each style of a data set: which other style a row may be asked for, and a real text of that style.

    Attributes:
        texts: {label of a style: ids of its rows}, in the order in which the styles first appear.
        styles: {label: the style as the data set writes it}.
        targets: Token ids of each row's text.
    """

    texts: Mapping[str, Sequence[int]]
    styles: Mapping[str, Any]
    targets: Sequence[Sequence[int]]

    @classmethod
    def of(cls, rows: datasets.Dataset, labels: Sequence[str]) -> "StylePool":
        """The pool of tokenised `rows`, `labels` naming the style of each.

        Raises:
            ValueError: Fewer than two styles: there is nothing to rewrite a text to.
        """
        texts: dict[str, list[int]] = defaultdict(list)
        for row, label in enumerate(labels):
            texts[label].append(row)
        if len(texts) < 2:
            raise ValueError(
                f"train_dataset has texts of {list(texts)} and must have at least 2 styles to rewrite one into the "
                "other; add texts of another style, or set task='generation' to write in one"
            )
        styles = {label: rows[found[0]]["style"] for label, found in texts.items()}
        return cls(dict(texts), styles, rows["target_ids"])

    def other(self, label: str, seed: int) -> str:
        """A style that is not `label`, by the number `seed`."""
        others = [known for known in self.texts if known != label]
        return others[seed % len(others)]

    def exemplar(self, label: str, seed: int) -> int:
        """A row of the style `label`, by the number `seed`."""
        return self.texts[label][seed % len(self.texts[label])]


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
