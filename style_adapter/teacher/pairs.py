"""Training pairs from texts that have no counterpart: what a rewrite of each, by whomever, is turned into."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from .edit_teacher import EditTeacher

LEAST_LOGIT = 1.0


class Pair(TypedDict):
    """A row of paired training data; `synthetic` says of the target that a program made it."""

    source: str
    target: str
    style: str
    synthetic: bool


class ComparedPair(Pair):
    """A pair with a worse target beside it; "" where there is nothing to compare."""

    rejected: str


def pairs_of(text: str, style: str, rewrite: str, wanted: str, *, both_ways: bool = True) -> list[Pair]:
    """x -> y, which teaches the wanted style, and y -> x, if `both_ways`, which teaches that of x.

    The target of the second is a text that a person wrote, as in back-translation (Sennrich et al. 2016, arXiv
    1511.06709).

    Args:
        text: x.
        style: Of x.
        rewrite: y.
        wanted: The style that y is to be in.
        both_ways: Also y -> x.
    """
    there: Pair = {"source": text, "target": rewrite, "style": wanted, "synthetic": True}
    back: Pair = {"source": rewrite, "target": text, "style": style, "synthetic": False}
    return [there, back] if both_ways else [there]


def in_turn(styles: Sequence[str], names: Iterable[str] | None = None) -> list[str]:
    """For each text a style that is not its own: those of `names`, or all that occur, take turns.

    >>> in_turn(["a", "a", "b", "c"])
    ['b', 'c', 'a', 'b']

    Raises:
        ValueError: A text whose own style is the only one.
    """
    known = list(dict.fromkeys(styles if names is None else names))
    others = {style: [name for name in known if name != style] for style in {*styles}}
    if lonely := sorted(style for style, rest in others.items() if not rest):
        raise ValueError(f"styles={lonely} must name two at least: one is rewritten into another; add their texts")
    return [others[style][i % len(others[style])] for i, style in enumerate(styles)]


@dataclass(frozen=True)
class Halves:
    """Texts in random order, in two halves: the evidence of a teacher hears one and judges rewrites of the other.

    Evidence is sure of every text that it was fitted on, and so would be fooled by its own texts.

    Attributes:
        texts: Of at least two styles.
        styles: The style of each.
        seed: Of the order and the fits.
    """

    texts: Sequence[str]
    styles: Sequence[str]
    seed: int = 0

    @cached_property
    def teacher(self) -> EditTeacher:
        """It has heard the second half.

        Raises:
            ValueError: As `EditTeacher.fit`.
        """
        unheard = {*self._places[0]}
        left_out = [i in unheard for i in range(len(self.texts))]
        return EditTeacher.fit(self.texts, self.styles, unheard=left_out, seed=self.seed)

    def unheard(self, start: int, count: int) -> tuple[list[str], list[str]]:
        """(texts, styles) of at most `count` of the first half, from its `start`-th on and then from its first."""
        first = self._places[0]
        return self._columns([first[i % len(first)] for i in range(start, start + min(count, len(first)))])

    def pairs(
        self, count: int | None = None, *, least_logit: float = LEAST_LOGIT, both_ways: bool = True
    ) -> list[Pair]:
        """The teacher's pairs, of the first half from its first text on; see `teacher_pairs`.

        Raises:
            ValueError: As `EditTeacher.fit`, or no rewrite that is good enough.
        """
        (first, second), wanted = self._places, len(self.texts) if count is None else min(count, len(self.texts))
        pairs = _pairs(self.teacher, *self._columns(first[:wanted]), least_logit, both_ways)
        if rest := second[: max(0, wanted - len(first))]:
            teacher = self.teacher.hearing(*self._columns(sorted(first)), seed=self.seed)
            pairs += _pairs(teacher, *self._columns(rest), least_logit, both_ways)
        if not pairs:
            raise ValueError(f"least_logit={least_logit} leaves none of {len(self.texts)} texts a rewrite; lower it")
        return pairs

    @cached_property
    def _places(self) -> tuple[list[int], list[int]]:
        """Where the texts of each half stand."""
        order = random.Random(self.seed).sample(range(len(self.texts)), len(self.texts))
        return order[::2], order[1::2]

    def _columns(self, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """(texts, styles) of some rows."""
        return [self.texts[i] for i in rows], [self.styles[i] for i in rows]


def teacher_pairs(
    texts: Sequence[str],
    styles: Sequence[str],
    *,
    count: int | None = None,
    least_logit: float = LEAST_LOGIT,
    both_ways: bool = True,
    seed: int = 0,
) -> list[Pair]:
    """Pairs (source, target, style) for training as if they had been given.

    Each text x gets a rewrite y in another style; see `pairs_of`. The teacher's evidence never judges a text that it
    was fitted on: it is fitted on one half and rewrites the other, then the other way round if `count` asks for more.

    Args:
        texts: Of at least two styles.
        styles: The style of each.
        count: Texts to rewrite at most, drawn at random; all if left out.
        least_logit: What the evidence must say of a rewrite for it to be kept.
        both_ways: Also y -> x.
        seed: Of the halves, the draw and the fits.

    Raises:
        ValueError: As `EditTeacher.fit`, or no rewrite that is good enough.
    """
    return Halves(texts, styles, seed).pairs(count, least_logit=least_logit, both_ways=both_ways)


def _pairs(
    teacher: EditTeacher, texts: Sequence[str], styles: Sequence[str], least_logit: float, both_ways: bool
) -> list[Pair]:
    """The pairs of a few texts."""
    wanted = in_turn(styles, teacher.languages)
    pairs: list[Pair] = []
    for text, style, aim, rewrite in zip(texts, styles, wanted, teacher.rewrite(texts, wanted), strict=True):
        if rewrite is not None and rewrite.logit >= least_logit and rewrite.score > 0:
            pairs += pairs_of(text, style, rewrite.text, aim, both_ways=both_ways)
    return pairs
