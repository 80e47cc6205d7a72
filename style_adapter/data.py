"""What is read: `datasets` columns checked once, tokenised once, and collated into tensors of one shape a batch.

Transfer rows have `source`, `target` and `style`; classification rows have `text` (and `text_pair`), `label` and,
if styles matter, `style`. A style is whatever `StyleBank.parse` takes: a name, several names, {name: weight}, or
{"text_style": [...], "visual_style": [...]}.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .functional import IGNORED

COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": ("source", "target", "style"),
    "classification": ("text", "label"),
}
TEXT_COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": ("source", "target"),
    "classification": ("text", "text_pair"),
}

StyleEncoding = Callable[[Sequence[Any]], tuple[Int[Tensor, "rows slots"], Float[Tensor, "rows slots"]]]


def check_rows(dataset: Any, task: str, *, name: str = "train_dataset") -> None:
    """Refuses a data set that could not be learnt from, before any time is spent on it.

    Raises:
        ValueError: An unknown task, an empty data set, a missing column, an empty text or what is no class (its row
            is named).
    """
    if task not in COLUMNS:
        raise ValueError(f"task={task!r} must be one of {', '.join(COLUMNS)}")
    if len(dataset) == 0:
        raise ValueError(f"{name} has 0 rows and must have at least 1; check the files and filters it was made with")
    for column in COLUMNS[task]:
        if column not in dataset.column_names:
            raise ValueError(
                f"{name} lacks the column {column!r}: task {task!r} needs {', '.join(COLUMNS[task])}, found "
                f"{', '.join(dataset.column_names)}; rename or add it"
            )
    for column in (c for c in TEXT_COLUMNS[task] if c in dataset.column_names):
        for row, text in enumerate(dataset[column]):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name}[{row}][{column!r}]={text!r} must be a non-empty text; drop or fill the row")
    for row, label in enumerate(dataset["label"] if task == "classification" else ()):
        if not isinstance(label, int) or (label < 0 and label != IGNORED):
            raise ValueError(f"{name}[{row}]['label']={label!r} must be the number of a class, from 0; number them")


def fill_prompt(prompt: str, source: str) -> str:
    """The prompt around one source text; braces in the text stay what they are."""
    return prompt.replace("{source}", source)


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
        _check_lengths(rows, lengths, max_length)
        return {
            "prompt_ids": prompts,
            "target_ids": targets,
            "style": batch["style"],
            "row_id": rows,
            "length": lengths,
        }

    return dataset.map(convert, batched=True, with_indices=True, remove_columns=dataset.column_names, desc="Tokenizing")


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids without the special tokens that open or close a text."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Int[Tensor, "batch seq"]:
    """One tensor of rows padded with `value` to the longest, on the left or on the right."""
    width = max(map(len, rows))
    filled = [[*[value] * (width - len(r)), *r] if left else [*r, *[value] * (width - len(r))] for r in rows]
    return torch.tensor(filled, dtype=torch.long)


def pad_and_mask(
    rows: Sequence[Sequence[int]], value: int, *, left: bool = False
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """`pad`, and the attention mask: 1 at each row's own tokens."""
    return pad(rows, value, left=left), pad([[1] * len(row) for row in rows], 0, left=left)


def chosen_rows(row_ids: Int[Tensor, " batch"], fraction: float) -> Bool[Tensor, " batch"]:
    """A fixed share of rows: hash(row id) < fraction, so that any split into batches chooses the same rows.

    Knuth's multiplicative hash (The Art of Computer Programming 3, section 6.4).
    """
    return (row_ids * 2654435761 % 2**32).double() / 2**32 < fraction


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

    def convert(batch: Mapping[str, list[Any]], rows: list[int]) -> dict[str, list[Any]]:
        ids = tokenizer(batch["text"], batch.get("text_pair"))["input_ids"]
        _check_lengths(rows, list(map(len, ids)), max_length)
        styles = batch.get("style", [default_style] * len(rows))
        return {"input_ids": ids, "label": batch["label"], "style": styles, "row_id": rows, "length": [*map(len, ids)]}

    return dataset.map(convert, batched=True, with_indices=True, remove_columns=dataset.column_names, desc="Tokenizing")


def _check_lengths(rows: Sequence[int], lengths: Sequence[int], max_length: int) -> None:
    """Refuses the first row that is too long."""
    for row, length in zip(rows, lengths, strict=True):
        if length > max_length:
            raise ValueError(
                f"row {row} has {length} tokens and must have at most max_length={max_length}; split or drop it, or "
                "raise max_length"
            )


@dataclass(frozen=True)
class ClassificationCollator:
    """Rows of `tokenize_classification` -> one batch for the game, padded on the right.

    Args:
        pad_token_id: Fills the right side; masked out.
        encode_styles: A list of styles -> ids and weights [rows, slots]; `StyleBank.code` behind it.
    """

    pad_token_id: int
    encode_styles: StyleEncoding

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch: `input_ids` and `attention_mask` [batch, seq], `labels` [batch], styles."""
        ids, mask = pad_and_mask([row["input_ids"] for row in rows], self.pad_token_id)
        style_ids, weights = self.encode_styles([row["style"] for row in rows])
        row_ids = torch.tensor([row["row_id"] for row in rows])
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": torch.tensor([row["label"] for row in rows]),
            "style_ids": style_ids,
            "style_weights": weights,
            "row_ids": row_ids,
            "judged": torch.zeros_like(row_ids, dtype=torch.bool),
        }


@dataclass(frozen=True)
class StyleCollator:
    """Any collator's batch, and beside it the style of each row: `batch["styles"]`, which the model's forward takes.

    For trainers that are not ours, transformers' and TRL's, whose collators drop a column of names or trip over it.
    They remove the column before any collator sees it unless their arguments say `remove_unused_columns=False`. A
    batch of n times as many rows has the styles n times, one block after another: TRL's preference trainers lay out
    [chosen..., rejected...].

    Args:
        collate: Makes the batch of everything else; it gets the rows without their style.
        column: The column of styles, each a name, a mixture {name: weight} or whatever else `StyleBank.parse` takes.

    Example:
        >>> from transformers import default_data_collator
        >>> batch = StyleCollator(default_data_collator)([{"input_ids": [5, 6], "style": "kjv"}])
        >>> batch["input_ids"].tolist(), batch["styles"]
        ([[5, 6]], ['kjv'])
    """

    collate: Callable[[list[dict[str, Any]]], MutableMapping[str, Any]]
    column: str = "style"

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch of `collate` and `styles`, a list of one style a row of the batch.

        Raises:
            ValueError: A row without a style, or a batch whose rows are not the given ones, once or several times
                over: packed or padding-free, where one row holds several texts.
        """
        styles = [row.get(self.column) for row in rows]
        if None in styles:
            raise ValueError(
                f"{self.column!r} must be in each row, and row {styles.index(None)} of the batch has "
                f"{', '.join(rows[styles.index(None)])}; set remove_unused_columns=False in the trainer's arguments, "
                "and fill the column"
            )
        batch = self.collate([{name: value for name, value in row.items() if name != self.column} for row in rows])
        lengths = (len(value) for value in batch.values() if isinstance(value, Tensor) and value.dim())
        length = next(lengths, len(rows))
        if length % len(rows):
            raise ValueError(
                f"styles: {len(rows)} styles for a batch of {length} rows; set packing=False and padding_free=False: "
                "texts that share a row share its style"
            )
        return {**batch, "styles": styles * (length // len(rows))}
