"""How usual a run of words is: an n-gram model of one pile of texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt64

from .arrays import found_in
from .lexicon import BITS, EDGE

ORDER = 4  # as many numbers of words make one code
_BITS = np.uint64(BITS)
Codes = UInt64[np.ndarray, "..."]


@dataclass(frozen=True)
class Order:
    """p_n of one order n >= 2: c(h w) and c(h) stand in arrays sorted by code, for fast search.

    Attributes:
        grams: Codes of the n-grams h w.
        shares: max(c(h w) - d, 0) / c(h) of each.
        histories: Codes of the histories h.
        rests: d N(h) / c(h) of each.
    """

    grams: UInt64[np.ndarray, " grams"]
    shares: Float[np.ndarray, " grams"]
    histories: UInt64[np.ndarray, " histories"]
    rests: Float[np.ndarray, " histories"]

    @classmethod
    def of(cls, grams: UInt64[np.ndarray, " grams"], counts: Int[np.ndarray, " grams"], discount: float) -> "Order":
        """From sorted n-grams, grouped by history since the last word has the lowest bits."""
        histories, starts, kinds = np.unique(grams >> _BITS, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, starts)
        shares = np.maximum(counts - discount, 0) / np.repeat(totals, kinds)
        return cls(grams, shares, histories, discount * kinds / totals)

    def interpolate(self, codes: Codes, lower: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """p_n of each coded n-gram, `lower` = p_{n-1}; an unknown history says nothing."""
        gram, known = found_in(self.grams, codes)
        history, seen = found_in(self.histories, codes >> _BITS)
        return np.where(known, self.shares[gram], 0.0) + np.where(seen, self.rests[history], 1.0) * lower


@dataclass(frozen=True)
class NGrams:
    """log p(w_i | w_{i-3}, w_{i-2}, w_{i-1}), by interpolated Kneser-Ney smoothing.

    p_n(w | h) = max(c(h w) - d, 0) / c(h) + d N(h) / c(h) p_{n-1}(w | h'), with N(h) the kinds of words seen after h,
    h' = h without its first word and, below the highest order, c(h w) the kinds of words seen before h w.
    Kneser and Ney (1995), "Improved backing-off for m-gram language modeling"; interpolated as in Chen and Goodman
    (1999), "An empirical study of smoothing techniques for language modeling".

    Attributes:
        unigrams: log p_1 of each word of the lexicon.
        orders: The orders from 2 to 4.
    """

    unigrams: Float[np.ndarray, " words"]
    orders: tuple[Order, ...]

    @classmethod
    def fit(cls, texts: Sequence[Sequence[int]], words: int, *, discount: float = 0.75) -> "NGrams":
        """The model of texts as numbers of a lexicon with so many `words`; `discount` is d, between 0 and 1."""
        parts = [part for text in texts for part in ([EDGE] * (ORDER - 1), text, [EDGE])]
        stream = np.fromiter((word for part in parts for word in part), dtype=np.uint64)
        predicted = np.fromiter((i % 3 > 0 for i, part in enumerate(parts) for _ in part), dtype=bool)
        grams, counts = np.unique(_codes(stream)[predicted], return_counts=True)
        orders = []
        for shorter in range(ORDER - 1, 0, -1):
            orders.append(Order.of(grams, counts, discount))
            grams, counts = np.unique(grams & _mask(shorter), return_counts=True)
        total = counts.sum()
        unigrams = np.full(words, discount * len(grams) / total / words)
        unigrams[grams.astype(np.int64)] += (counts - discount) / total
        return cls(np.log(unigrams), tuple(reversed(orders)))

    def log_probability(self, ids: Int[np.ndarray, "texts length"]) -> Float[np.ndarray, " texts"]:
        """log p of each whole text, its end included; texts are padded with edges behind."""
        edges = np.full((len(ids), ORDER - 1), EDGE, dtype=np.uint64)
        padded = np.hstack([edges, ids.astype(np.uint64), edges[:, :1]])
        codes = _codes(padded)[:, ORDER - 1 :]
        found = np.exp(self.unigrams[(codes & _mask(1)).astype(np.int64)])
        for n, order in enumerate(self.orders, 2):
            found = order.interpolate(codes & _mask(n), found)
        lengths = (ids != EDGE).sum(1, keepdims=True)
        return np.where(np.arange(ids.shape[1] + 1) <= lengths, np.log(found), 0.0).sum(1)

    def usualness(self, ids: Int[np.ndarray, "texts length"]) -> Float[np.ndarray, " texts"]:
        """sum_i log p_1(w_i) of each text: how common its words are, whatever their order."""
        return np.where(ids != EDGE, self.unigrams[ids], 0.0).sum(1)


def _codes(stream: UInt64[np.ndarray, "*rows length"]) -> UInt64[np.ndarray, "*rows length"]:
    """The code of the four words that end at each place; before the start there are edges."""
    codes = stream.copy()
    for back in range(1, ORDER):
        codes[..., back:] |= stream[..., :-back] << np.uint64(BITS * back)
    return codes


def _mask(words: int) -> np.uint64:
    """The bits of the last `words` words."""
    return np.uint64(2 ** (BITS * words) - 1)
