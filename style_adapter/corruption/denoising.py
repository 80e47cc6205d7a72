"""Noise for denoising: words dropped, words moved a little, markers of the style taken out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from .markers import StyleMarkers
from .words import join_words, split_words

Word = TypeVar("Word")


def drop_words(words: Sequence[Word], generator: torch.Generator, *, rate: float = 0.1) -> list[Word]:
    """Each word kept with probability 1 - rate, and one of them whatever happens.

    Words or token ids. Lample et al. 2018 (arXiv 1711.00043), section 2.3, whose rate is 0.1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate} must be >= 0 and < 1; 0.1 is usual, 0 drops nothing")
    draws = _uniform(len(words), generator)
    kept = [word for word, draw in zip(words, draws, strict=True) if draw >= rate]
    return kept or [word for word, draw in zip(words, draws, strict=True) if draw == max(draws)][:1]


def shuffle_words(words: Sequence[Word], generator: torch.Generator, *, reach: int = 3) -> list[Word]:
    """A random order sigma with |sigma(i) - i| <= reach: sorted by i + u_i with u uniform in [0, reach + 1).

    Words or token ids. Lample et al. 2018 (arXiv 1711.00043), section 2.3, whose reach k is 3.
    """
    if reach < 0:
        raise ValueError(f"reach={reach} must be >= 0; 3 is usual, 0 keeps the order")
    keys = [i + (reach + 1) * draw for i, draw in enumerate(_uniform(len(words), generator))]
    return [words[i] for i in sorted(range(len(words)), key=keys.__getitem__)]


@dataclass(frozen=True)
class Corruption:
    """x -> corrupt(x): markers of its style out, words dropped, the rest shuffled; what `rec` rebuilds x from.

    Attributes:
        drop: Share of words dropped.
        reach: How many places a word may move.
        markers: Which words tell the style; None takes none out.

    >>> Corruption(drop=0.2, reach=2)("the cat sat on the mat, again", torch.Generator().manual_seed(9))
    'the cat the on sat mat, again'
    """

    drop: float = 0.1
    reach: int = 3
    markers: StyleMarkers | None = None

    def __call__(self, text: str, generator: torch.Generator, *, style: str | None = None) -> str:
        """The corrupted text, which has a word at least if `text` has; white space and punctuation stay in form."""
        words, gaps = split_words(text)
        places = list(range(len(words)))
        if self.markers is not None and style is not None:
            places = self.markers.plain_places(words, style)
        places = drop_words(places, generator, rate=self.drop)
        return join_words(words, gaps, places, shuffle_words(places, generator, reach=self.reach)) if places else text


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    """Numbers in [0, 1)."""
    return torch.rand(count, generator=generator).tolist()
