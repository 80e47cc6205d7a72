"""Training pairs from texts that have no counterpart: what the teacher's rewrites are turned into."""

import random
from collections.abc import Sequence
from typing import TypedDict

from .edit_teacher import EditTeacher

LEAST_LOGIT = 1.0


class Pair(TypedDict):
    """A row of paired training data; `synthetic` says of the target that a program made it."""

    source: str
    target: str
    style: str
    synthetic: bool


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

    Each text x gets a rewrite y in another style; x -> y teaches that style, and y -> x, if `both_ways`, the style of
    x by a text that a person wrote (as in back-translation, Sennrich et al. 2016, arXiv 1511.06709). The teacher's
    evidence never judges a text that it was fitted on: it is fitted on one half and rewrites the other, then the
    other way round if `count` asks for more.

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
    chosen = random.Random(seed)
    order = chosen.sample(range(len(texts)), len(texts))
    halves, wanted = (order[::2], order[1::2]), len(order) if count is None else min(count, len(order))
    unheard = set(halves[0])
    teacher = EditTeacher.fit(texts, styles, unheard=[i in unheard for i in range(len(texts))], seed=seed)
    pairs = _pairs(teacher, *_columns(halves[0][:wanted], texts, styles), least_logit, both_ways)
    if rest := halves[1][: max(0, wanted - len(halves[0]))]:
        teacher = teacher.hearing(*_columns(sorted(unheard), texts, styles), seed=seed)
        pairs += _pairs(teacher, *_columns(rest, texts, styles), least_logit, both_ways)
    if not pairs:
        raise ValueError(f"least_logit={least_logit} leaves none of {len(texts)} texts a rewrite; lower it")
    return pairs


def _columns(rows: Sequence[int], texts: Sequence[str], styles: Sequence[str]) -> tuple[list[str], list[str]]:
    """(texts, styles) of some rows."""
    return [texts[i] for i in rows], [styles[i] for i in rows]


def _pairs(
    teacher: EditTeacher, texts: Sequence[str], styles: Sequence[str], least_logit: float, both_ways: bool
) -> list[Pair]:
    """The pairs of a few texts, each rewritten in the next style but its own, in turn."""
    names = list(teacher.languages)
    others = {style: [name for name in names if name != style] for style in names}
    wanted = [others[style][i % len(others[style])] for i, style in enumerate(styles)]
    pairs: list[Pair] = []
    for text, style, target, rewrite in zip(texts, styles, wanted, teacher.rewrite(texts, wanted), strict=True):
        if rewrite is not None and rewrite.logit >= least_logit and rewrite.score > 0:
            pairs.append({"source": text, "target": rewrite.text, "style": target, "synthetic": True})
            if both_ways:
                pairs.append({"source": rewrite.text, "target": text, "style": style, "synthetic": False})
    return pairs
