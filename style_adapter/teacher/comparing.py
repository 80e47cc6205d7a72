"""What was changed between a text and a rewrite that nobody watched being made."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from .arrays import padded


def word_edits(sources: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]) -> Int[np.ndarray, " pairs"]:
    """Levenshtein distance in words: the least number of words put in, taken out or replaced.

    Levenshtein (1966), "Binary codes capable of correcting deletions, insertions, and reversals". Column by column of
    the usual table, for all pairs at once.

    >>> word_edits([["a", "b", "c"], ["a"]], [["a", "x", "c", "d"], []]).tolist()
    [2, 1]
    """
    numbers: dict[str, int] = {}
    x, y = (
        padded([[numbers.setdefault(word, len(numbers)) for word in text] for text in texts], fill=-1)
        for texts in (sources, outputs)
    )
    rows = np.arange(len(x))
    table = np.tile(np.arange(x.shape[1] + 1), (len(x), 1))  # distance of each beginning of x to nothing of y
    columns = [table]
    for j in range(y.shape[1]):
        replaced = table[:, :-1] + (x != y[:, j : j + 1])
        reached = np.minimum(np.hstack([np.full((len(x), 1), j + 1), replaced]), table + 1)
        # Taking out words of x costs one each: the least of reached[i'] + i - i' over i' <= i.
        place = np.arange(table.shape[1])
        table = np.minimum.accumulate(reached - place, axis=1) + place
        columns.append(table)
    lengths = [np.array([len(text) for text in texts], dtype=np.int64) for texts in (sources, outputs)]
    return np.stack(columns)[lengths[1], rows, lengths[0]]


def taken_and_put(source: Sequence[int], output: Sequence[int]) -> tuple[list[int], list[int]]:
    """(words of the source that the output lacks, words of the output that the source lacks), each as often as so.

    >>> taken_and_put([1, 2, 2, 3], [1, 2, 4])
    ([2, 3], [4])
    """
    before, after = Counter(source), Counter(output)
    return sorted((before - after).elements()), sorted((after - before).elements())
