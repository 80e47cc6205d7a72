"""What the teacher's arrays share: texts padded to one length, codes looked up, rows ranked in their groups."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt64


def padded(texts: Sequence[Sequence[int]], fill: int = 0) -> Int[np.ndarray, "texts length"]:
    """Texts of unequal length in one array, `fill` behind them: the edge of a text, if left out."""
    ids = np.full((len(texts), max(map(len, texts), default=0)), fill, dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return ids


def found_in(
    keys: UInt64[np.ndarray, " keys"], wanted: UInt64[np.ndarray, "*shape"]
) -> tuple[Int[np.ndarray, "*shape"], Bool[np.ndarray, "*shape"]]:
    """(place, whether it is there) of each wanted code in sorted `keys`, of which there is one at least.

    >>> found_in(np.array([2, 5], dtype=np.uint64), np.array([5, 4], dtype=np.uint64))
    (array([1, 1]), array([ True, False]))
    """
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted


def rank_within(groups: Shaped[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """0, 1, ... of the rows of each group; equal groups stand together, in rising order.

    >>> rank_within(np.array([3, 3, 7])).tolist()
    [0, 1, 0]
    """
    return np.arange(len(groups)) - np.searchsorted(groups, groups)
