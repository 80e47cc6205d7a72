"""What a pile of texts has between two words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from .arrays import found_in, rank_within
from .lexicon import BITS, EDGE, RARE

LONGEST = 3  # words of a span: with its length they make one code


@dataclass(frozen=True)
class Neighbours:
    """Spans of at most three words by the two words around them, the commonest first.

    Attributes:
        keys: Sorted codes of (word before, word behind).
        starts: Where the spans of each key begin in `spans`; one more ends the last.
        spans: Codes of the spans.
    """

    keys: UInt64[np.ndarray, " keys"]
    starts: Int[np.ndarray, " keys_and_one"]
    spans: UInt64[np.ndarray, " spans"]

    @classmethod
    def fit(cls, texts: Sequence[Sequence[int]], *, least: int = 2, most: int = 40) -> "Neighbours":
        """The spans that stand at least `least` times between their neighbours, at most `most` for each two."""
        stream = np.fromiter((word for text in texts for word in (EDGE, *text)), dtype=np.uint64)
        stream = np.append(stream, np.uint64(EDGE))
        found = [_between(stream, length) for length in range(LONGEST + 1)]
        keys, spans = (np.concatenate(part) for part in zip(*found, strict=True))
        keys, spans, counts = _counted(keys, spans)
        order = np.lexsort((spans, -counts, keys))
        keys, spans, counts = keys[order], spans[order], counts[order]
        kept = (counts >= least) & (rank_within(keys) < most)
        unique, starts = np.unique(keys[kept], return_index=True)
        return cls(unique, np.append(starts, kept.sum()), spans[kept])

    def ranges(self, keys: UInt64[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """(start, end) in `spans` of what stands between each two neighbours; equal where there is nothing."""
        if len(self.keys) == 0:
            return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)
        places, found = found_in(self.keys, keys)
        return self.starts[places] * found, self.starts[places + 1] * found


def key_of(before: np.ndarray, behind: np.ndarray) -> UInt64[np.ndarray, "..."]:
    """The code of two neighbours."""
    return (before.astype(np.uint64) << np.uint64(BITS)) | behind.astype(np.uint64)


def words_of(spans: UInt64[np.ndarray, " spans"]) -> tuple[Int[np.ndarray, "spans 3"], Int[np.ndarray, " spans"]]:
    """(words, lengths) of coded spans; behind its words a span has edges."""
    shifts = np.uint64(BITS) * np.arange(LONGEST, dtype=np.uint64)
    words = (spans[:, None] >> shifts) & np.uint64(2**BITS - 1)
    return words.astype(np.int64), (spans >> np.uint64(BITS * LONGEST)).astype(np.int64)


def _between(stream: UInt64[np.ndarray, " length"], length: int) -> tuple[np.ndarray, np.ndarray]:
    """(keys, codes) of all spans of `length` words that lie within one text and hold no rare word."""
    last = len(stream) - length - 1
    code, inside = np.full(last, length << (BITS * LONGEST), dtype=np.uint64), np.ones(last, dtype=bool)
    for i in range(length):
        word = stream[i + 1 : i + 1 + last]
        code |= word << np.uint64(BITS * i)
        inside &= (word != EDGE) & (word != RARE)
    return key_of(stream[:last], stream[length + 1 :])[inside], code[inside]


def _counted(keys: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each different (key, span), and how often it stands there."""
    order = np.lexsort((spans, keys))
    keys, spans = keys[order], spans[order]
    new = np.r_[True, (keys[1:] != keys[:-1]) | (spans[1:] != spans[:-1])]
    starts = np.flatnonzero(new)
    return keys[starts], spans[starts], np.diff(np.r_[starts, len(keys)])
