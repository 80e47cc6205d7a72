"""Rows of words and their classes: each word's label stands at its first token."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from ..functional import IGNORED
from .tokens import Columns, tokenized_rows


def words_of(text: str | Sequence[str]) -> list[str]:
    """The words of a text: those given, or what white space separates."""
    return text.split() if isinstance(text, str) else list(text)


def align_words(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], rows: Sequence[int] | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of each text, and the place of each word's first token among them.

    The words are joined by blanks and tokenised as the text that they make: given one by one, tokenizers that hold a
    blank as part of the next word would lose it, and the backbone has never read such text.

    Args:
        tokenizer: A fast one, which knows where in the text a token stands.
        texts: Words.
        rows: How errors name the texts; their places if left out.

    Raises:
        ValueError: A tokenizer that cannot tell where its tokens stand, or a word without a token of its own.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"tokenizer={type(tokenizer).__name__} must be a fast one: it tells which token a word begins with; load "
            "it with use_fast=True"
        )
    if not texts:
        return [], []
    encoded = tokenizer([" ".join(words) for words in texts])
    firsts = [
        _first_tokens(encoded.char_to_token, i, words, row)
        for i, (words, row) in enumerate(zip(texts, rows or range(len(texts)), strict=True))
    ]
    return encoded["input_ids"], firsts


def _first_tokens(token_of: Any, text: int, words: Sequence[str], row: int) -> list[int]:
    """The first token of each word of the batch's text number `text`; `token_of` (text, character) -> token."""
    found: list[int] = []
    start = 0
    for place, word in enumerate(words):
        tokens = (token_of(text, start + i) for i in range(len(word)))
        first = next((token for token in tokens if token is not None), None)
        if first is None or (found and first <= found[-1]):
            raise ValueError(
                f"row {row}: word {place}, {word!r}, must have a token of its own and has none; drop the word, or join "
                "it to its neighbour"
            )
        found.append(first)
        start += len(word) + 1  # the blank
    return found


def tokenize_token_classification(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    default_style: str | None = None,
    max_length: int = 512,
) -> datasets.Dataset:
    """Columns `input_ids`, `label` (at a word's first token, -100 elsewhere), `style`, `row_id` and `length`.

    Raises:
        ValueError: A row longer than `max_length` tokens, as many labels as there are not words, or words that
            `align_words` refuses.
    """

    def encode(batch: Mapping[str, list[Any]], rows: list[int]) -> Columns:
        ids, firsts = align_words(tokenizer, [*map(words_of, batch["text"])], rows)
        return {"input_ids": ids, "label": [_placed(*row) for row in zip(batch["label"], firsts, ids, strict=True)]}

    return tokenized_rows(dataset, encode, max_length=max_length, default_style=default_style)


def _placed(labels: Sequence[int], places: Sequence[int], ids: Sequence[int]) -> list[int]:
    """The labels at their places among the tokens, -100 elsewhere."""
    at = dict(zip(places, labels, strict=True))
    return [at.get(place, IGNORED) for place in range(len(ids))]
