"""Texts as token ids: prompts, ids without special tokens, padding, the tensors of a teacher-forced pass."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..functional import IGNORED

StyleEncoding = Callable[[Sequence[Any]], tuple[Int[Tensor, "rows slots"], Float[Tensor, "rows slots"]]]
Columns = dict[str, list[Any]]


def fill_prompt(prompt: str, source: str) -> str:
    """The prompt around one source text; braces in the text stay what they are."""
    return prompt.replace("{source}", source)


def chat_prompt(tokenizer: PreTrainedTokenizerBase, instruction: str) -> str | None:
    """The prompt that asks a chat model for `instruction`, by its own template; None for a tokenizer without any.

    Where the template allows it, the request is a later turn: the first would come with a system's message that has
    nothing to say here and would stand in every row.

    Raises:
        ValueError: No place for the source in `instruction`.
    """
    if "{source}" not in instruction:
        raise ValueError(f"instruction={instruction!r} must contain {{source}}; add it where the text belongs")
    if not tokenizer.chat_template:
        return None
    turns = [
        {"role": role, "content": text} for role, text in (("user", "A"), ("assistant", "B"), ("user", instruction))
    ]

    def written(*chosen: dict[str, str], asks: bool) -> str:
        return str(tokenizer.apply_chat_template(list(chosen), tokenize=False, add_generation_prompt=asks))

    before, whole = written(*turns[:2], asks=False), written(*turns, asks=True)
    prompt = whole.removeprefix(before) if whole.startswith(before) else written(turns[2], asks=True)
    opening = tokenizer("")["input_ids"][:1]  # what the tokenizer itself puts before a text must not stand there twice
    return prompt.removeprefix(str(tokenizer.decode(opening))) if opening else prompt


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, sources: Sequence[str]) -> list[list[int]]:
    """Token ids of the prompt around each source; one token where there would be none: a text follows something."""
    if not sources:
        return []
    opens = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [ids or [opens] for ids in tokenizer([fill_prompt(prompt, s) for s in sources])["input_ids"]]


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids without the special tokens that open or close a text."""
    if not texts:
        return []
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


def room(tokens: int) -> int:
    """How many tokens a rewrite may have whose prompt has so many: half as many again, and some."""
    return tokens * 3 // 2 + 8


def closed_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts as they are learnt: each closed by the end-of-text token.

    Raises:
        ValueError: A tokenizer without that token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("tokenizer.eos_token=None must be a token: it ends each target; set tokenizer.eos_token")
    return [[*ids, end] for ids in plain_ids(tokenizer, texts)]


def with_targets(
    prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], pad_token_id: int, *, decoder_only: bool
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` [batch, prompt + target], `labels` [batch, target] for one teacher-forced pass.

    Prompts are padded on the left and targets on the right, so that all targets stand in the same columns and the
    head over the vocabulary runs on those alone. An encoder-decoder gets source and target apart.
    """
    inputs, mask = pad_and_mask(prompts, pad_token_id, left=decoder_only)
    labels = pad(targets, IGNORED)
    if decoder_only:
        inputs = torch.cat([inputs, labels.masked_fill(labels == IGNORED, pad_token_id)], dim=1)
        mask = torch.cat([mask, (labels != IGNORED).long()], dim=1)
    return {"input_ids": inputs, "attention_mask": mask, "labels": labels}


def token_weights(
    prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], novel_weight: float
) -> Float[Tensor, "batch target"]:
    """1 for a target token that the prompt holds too, `novel_weight` for another, 0 for padding."""
    width = max(map(len, targets))
    rows = []
    for prompt, target in zip(prompts, targets, strict=True):
        known = set(prompt)
        weights = [1.0 if token in known else novel_weight for token in target]
        rows.append(weights + [0.0] * (width - len(weights)))
    return torch.tensor(rows)


def check_lengths(rows: Sequence[int], lengths: Sequence[int], max_length: int, texts: Sequence[Any]) -> None:
    """Refuses the first row that is too long; `texts` tell which one that is where rows have been shuffled."""
    for row, length, text in zip(rows, lengths, texts, strict=True):
        if length > max_length:
            raise ValueError(
                f"row {row} has {length} tokens and must have at most max_length={max_length}; split or drop it, or "
                f"raise max_length (it begins with {text[:40]!r})"
            )


def tokenized_rows(
    dataset: datasets.Dataset,
    encode: Callable[[Mapping[str, list[Any]], list[int]], Columns],
    *,
    max_length: int,
    default_style: str | None = None,
) -> datasets.Dataset:
    """What `encode` makes of each batch of rows, and what all tasks need: `style`, `row_id` and `length`.

    Args:
        dataset: Rows as they were given; a row without a style gets the default one.
        encode: (columns of a batch, numbers of its rows) -> its new columns; those named `*_ids` are token ids.
        max_length: Most tokens of a row, over all its columns of ids.
        default_style: The style of rows without any.

    Raises:
        ValueError: A row longer than `max_length` tokens: nothing is cut off silently.
    """

    def convert(batch: Mapping[str, list[Any]], rows: list[int]) -> Columns:
        columns = encode(batch, rows)
        tokens = [ids for name, ids in columns.items() if name.endswith("_ids")]
        lengths = [sum(map(len, row)) for row in zip(*tokens, strict=True)]
        check_lengths(rows, lengths, max_length, next(iter(batch.values())))
        styles = batch.get("style", [default_style] * len(rows))
        return {**columns, "style": styles, "row_id": rows, "length": lengths}

    return dataset.map(convert, batched=True, with_indices=True, remove_columns=dataset.column_names, desc="Tokenizing")
