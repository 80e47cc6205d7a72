"""Texts as token ids: prompts, ids without special tokens, padding; and what is drawn from the id of a row."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

StyleEncoding = Callable[[Sequence[Any]], tuple[Int[Tensor, "rows slots"], Float[Tensor, "rows slots"]]]


def fill_prompt(prompt: str, source: str) -> str:
    """The prompt around one source text; braces in the text stay what they are."""
    return prompt.replace("{source}", source)


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


def check_lengths(rows: Sequence[int], lengths: Sequence[int], max_length: int) -> None:
    """Refuses the first row that is too long."""
    for row, length in zip(rows, lengths, strict=True):
        if length > max_length:
            raise ValueError(
                f"row {row} has {length} tokens and must have at most max_length={max_length}; split or drop it, or "
                "raise max_length"
            )
