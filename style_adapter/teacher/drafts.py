"""Texts on their way to a style, and the edits that lead on; thousands of them in arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from .arrays import rank_within
from .lexicon import EDGE
from .neighbours import LONGEST

INSERTED = -1
Table = TypeVar("Table", bound="_Table")


@dataclass(frozen=True)
class _Table:
    """Arrays with one row for each thing."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self: Table, rows: Any) -> Table:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def joined(cls: type[Table], parts: Sequence[Table]) -> Table:
        """All rows of `parts`."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


@dataclass(frozen=True)
class Edits(_Table):
    """Replacements of `removed` words of a draft, from `start` on, by others.

    Attributes:
        draft: Row of the draft.
        start: Place of the first word taken out.
        removed: Number of words taken out.
        words: Words put in, edges behind.
        inserted: Number of words put in.
    """

    draft: Int[np.ndarray, " edits"]
    start: Int[np.ndarray, " edits"]
    removed: Int[np.ndarray, " edits"]
    words: Int[np.ndarray, "edits 3"]
    inserted: Int[np.ndarray, " edits"]

    @property
    def changed(self) -> Int[np.ndarray, " edits"]:
        """Words changed: a replacement of one word by one is one change."""
        return np.maximum(self.removed, self.inserted)

    def taken_of(self, values: Float[np.ndarray, "drafts length ..."]) -> Float[np.ndarray, "edits ..."]:
        """The sum of `values`, one a word of each draft, over the words that each edit takes out."""
        before = np.cumsum(np.pad(values, ((0, 0), (1, 0), *[(0, 0)] * (values.ndim - 2))), axis=1)
        return before[self.draft, self.start + self.removed] - before[self.draft, self.start]


@dataclass(frozen=True)
class Drafts(_Table):
    """Rewrites under way, several of one source, all padded to one length with edges.

    Attributes:
        ids: Words of each draft.
        origin: The place in the source that each word comes from; INSERTED where it was put in.
        source: Row of the source.
        removed: Sum of the vectors of the words taken out.
        inserted: Sum of the vectors of the words put in.
        changed: Number of words changed.
        logit: Of the wanted style.
        score: How good the draft is.
    """

    ids: Int[np.ndarray, "drafts length"]
    origin: Int[np.ndarray, "drafts length"]
    source: Int[np.ndarray, " drafts"]
    removed: Float[np.ndarray, "drafts dim"]
    inserted: Float[np.ndarray, "drafts dim"]
    changed: Int[np.ndarray, " drafts"]
    logit: Float[np.ndarray, " drafts"]
    score: Float[np.ndarray, " drafts"]

    @classmethod
    def of(cls, ids: Int[np.ndarray, "texts length"], dim: int) -> "Drafts":
        """The sources themselves, with vectors of length `dim`."""
        origin = np.where(ids != EDGE, np.arange(ids.shape[1]), INSERTED)
        sums, zeros = np.zeros((len(ids), dim)), np.zeros(len(ids))
        return cls(ids, origin, np.arange(len(ids)), sums, sums, np.zeros(len(ids), dtype=np.int64), zeros, zeros)

    @classmethod
    def joined(cls, parts: Sequence["Drafts"]) -> "Drafts":
        """All drafts of `parts`, padded to the longest."""
        width = max(part.ids.shape[1] for part in parts)
        return super().joined([part._padded(width) for part in parts])

    def spans(self, length: int) -> tuple[Int[np.ndarray, " spans"], Int[np.ndarray, " spans"]]:
        """(draft, start) of every run of `length` words of the source."""
        sizes = (self.ids != EDGE).sum(1, keepdims=True)
        starts = np.arange(max(0, self.ids.shape[1] + 1 - length))
        kept = starts + length <= sizes
        for i in range(length):
            kept &= self.origin[:, i : i + len(starts)] != INSERTED
        draft, start = np.nonzero(kept)
        return draft, start

    def after(self, edits: Edits, vectors: Float[np.ndarray, "words dim"]) -> "Drafts":
        """The draft that each edit makes of its own, not scored yet."""
        wide = self._padded(self.ids.shape[1] + LONGEST)[edits.draft]
        place = np.arange(wide.ids.shape[1])
        start, removed, inserted = (n[:, None] for n in (edits.start, edits.removed, edits.inserted))
        fresh = (place >= start) & (place < start + inserted)
        # Behind the edit each word comes from as many places on as the text has become shorter.
        old = np.minimum(place + np.where(place < start, 0, removed - inserted), len(place) - 1)
        new = np.take_along_axis(edits.words, np.clip(place - start, 0, LONGEST - 1), axis=1)
        ids = np.where(fresh, new, np.take_along_axis(wide.ids, old, axis=1))
        origin = np.where(fresh, INSERTED, np.take_along_axis(wide.origin, old, axis=1))
        width = max(1, int((ids != EDGE).sum(1).max(initial=0)))
        return replace(
            wide,
            ids=ids[:, :width],
            origin=origin[:, :width],
            removed=wide.removed + edits.taken_of(_known(vectors, self.ids)),
            inserted=wide.inserted + _known(vectors, edits.words).sum(1),
            changed=wide.changed + edits.changed,
        )

    def best(self, count: int) -> "Drafts":
        """The best `count` different drafts of each source, best first."""
        ranked = self[np.lexsort((-self.score, self.source))]
        _, first = np.unique(np.column_stack([ranked.source, ranked.ids]), axis=0, return_index=True)
        ranked = ranked[np.sort(first)]
        return ranked[rank_within(ranked.source) < count]

    def _padded(self, width: int) -> "Drafts":
        """The same drafts, `width` words long."""
        more = ((0, 0), (0, width - self.ids.shape[1]))
        ids = np.pad(self.ids, more, constant_values=EDGE)
        return replace(self, ids=ids, origin=np.pad(self.origin, more, constant_values=INSERTED))


def _known(vectors: Float[np.ndarray, "words dim"], ids: Int[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows dim"]:
    """The vector of each word, zero for an edge."""
    return np.where((ids != EDGE)[..., None], vectors[ids], 0.0)
