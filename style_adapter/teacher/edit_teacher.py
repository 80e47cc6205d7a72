"""Pairs where there were none: each text with a rewrite of it in another style, from the texts of both alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from ..bars import in_batches
from .arrays import padded
from .comparing import taken_and_put, word_edits
from .drafts import INSERTED
from .evidence import StyleEvidence
from .lexicon import EDGE, Lexicon, Words
from .neighbours import Neighbours
from .ngrams import NGrams
from .scoring import RewriteWeights, cosine
from .search import EditSearch
from .vectors import word_vectors

_AT_ONCE = 64  # texts of a search; more make larger arrays, not a faster search
_SCORED_AT_ONCE = 1024


@dataclass(frozen=True)
class Rewrite:
    """What the teacher makes of a text.

    Attributes:
        text: The rewrite y.
        logit: log P(s | y) - log P(not s | y) of the wanted style s.
        score: As `RewriteWeights` has it.
    """

    text: str
    logit: float
    score: float


@dataclass(frozen=True)
class EditTeacher:
    """Rewrites texts into another style by a few edits that the texts of that style suggest: no network, no pairs.

    For styles that differ by their words, as sentiment and manners of speech do; in the manner of Li et al. (2018),
    "Delete, Retrieve, Generate" (arXiv 1804.06437), with a search in place of the template. See `EditSearch`.

    Attributes:
        lexicon: The words of all texts.
        evidence: What tells the styles apart.
        vectors: Of the words.
        languages: What is usual in each style.
        neighbours: What the texts of each style have between two words.
        weights: Of the score.

    >>> texts = ["the soup was good .", "the tea was good .", "the soup was bad .", "the tea was bad ."] * 9
    >>> teacher = EditTeacher.fit(texts, ["pro", "pro", "con", "con"] * 9)
    >>> [rewrite.text for rewrite in teacher.rewrite(["the tea was bad ."], ["pro"])]
    ['the tea was good .']
    """

    lexicon: Lexicon
    evidence: StyleEvidence
    vectors: Float[np.ndarray, "words dim"]
    languages: Mapping[str, NGrams]
    neighbours: Mapping[str, Neighbours]
    weights: RewriteWeights = field(default_factory=RewriteWeights)

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        styles: Sequence[str],
        *,
        unheard: Sequence[bool] | None = None,
        weights: RewriteWeights | None = None,
        seed: int = 0,
    ) -> "EditTeacher":
        """A teacher of all styles of `texts`.

        Args:
            texts: Of at least two styles.
            styles: The style of each.
            unheard: Which texts the evidence must not be fitted on, since it is sure of those that it has been.
            weights: Of the score; those that served well if left out.
            seed: Of the fits of evidence and vectors.

        Raises:
            ValueError: Columns of unequal length, fewer than two styles, or a style whose texts are all unheard.
            ImportError: scikit-learn is not installed.
        """
        left_out = [False] * len(texts) if unheard is None else unheard
        _check(texts, styles, left_out)
        parts = [Words.of(text) for text in texts]
        lexicon = Lexicon.fit(parts)
        ids = [lexicon.encode(part.words) for part in parts]
        piles = {
            s: [text for text, style in zip(ids, styles, strict=True) if style == s] for s in dict.fromkeys(styles)
        }
        heard = [i for i, out in enumerate(left_out) if not out]
        return cls(
            lexicon,
            StyleEvidence.fit([ids[i] for i in heard], [styles[i] for i in heard], seed=seed),
            word_vectors(ids, len(lexicon.words), seed=seed),
            {style: NGrams.fit(pile, len(lexicon.words)) for style, pile in piles.items()},
            {style: Neighbours.fit(pile) for style, pile in piles.items()},
            weights or RewriteWeights(),
        )

    def hearing(self, texts: Sequence[str], styles: Sequence[str], *, seed: int = 0) -> "EditTeacher":
        """The same teacher, its evidence fitted on these texts instead.

        Raises:
            ValueError: Columns of unequal length, or no text of a style that the teacher knows.
        """
        _check_lengths(len(texts), "texts", styles=styles)
        _check_heard(self.languages, styles)
        ids = [self.lexicon.encode(Words.of(text).words) for text in texts]
        return replace(self, evidence=StyleEvidence.fit(ids, styles, seed=seed))

    def rewrite(self, texts: Sequence[str], styles: Sequence[str]) -> list[Rewrite | None]:
        """The best rewrite of each text in its style; None where the texts of the style suggest no edit.

        Raises:
            ValueError: Columns of unequal length, or a style that the teacher does not know.
        """
        return [found[0] if found else None for found in self.rewrites(texts, styles, 1)]

    def rewrites(self, texts: Sequence[str], styles: Sequence[str], count: int) -> list[list[Rewrite]]:
        """At most `count` different rewrites of each text in its style, best first, for another to choose from.

        Raises:
            ValueError: Columns of unequal length, or a style that the teacher does not know.
        """
        _check_lengths(len(texts), "texts", styles=styles)
        found: list[list[Rewrite]] = [[] for _ in texts]
        for search, rows in self._parts(texts, styles, self.weights, _AT_ONCE):
            for i, rewrites in zip(rows, self._rewritten([texts[i] for i in rows], search, count), strict=True):
                found[i] = rewrites
        return found

    def score(
        self,
        sources: Sequence[str],
        outputs: Sequence[str],
        styles: Sequence[str],
        *,
        weights: RewriteWeights | None = None,
    ) -> Float[np.ndarray, " pairs"]:
        """score(y | x, s) of rewrites by anybody, by which the best of several can be told; see `RewriteWeights`.

        Args:
            sources: x.
            outputs: y.
            styles: s.
            weights: Of the score; the teacher's own if left out.

        Raises:
            ValueError: Columns of unequal length, or a style that the teacher does not know.
        """
        _check_lengths(len(sources), "sources", outputs=outputs, styles=styles)
        scores = np.zeros(len(sources))
        for search, rows in self._parts(sources, styles, weights or self.weights, _SCORED_AT_ONCE):
            scores[rows] = self._scored([sources[i] for i in rows], [outputs[i] for i in rows], search)
        return scores

    def _scored(
        self, sources: Sequence[str], outputs: Sequence[str], search: EditSearch
    ) -> Float[np.ndarray, " pairs"]:
        """The scores of a few rewrites in one style."""
        x, y = ([Words.of(text).words for text in texts] for texts in (sources, outputs))
        old, new = ([self.lexicon.encode(words) for words in texts] for texts in (x, y))
        moved = [taken_and_put(a, b) for a, b in zip(old, new, strict=True)]
        taken, put = (np.stack([self.vectors[pair[side]].sum(0) for pair in moved]) for side in (0, 1))
        return search.score(padded(old), padded(new), cosine(taken, put), word_edits(x, y))

    def _parts(
        self, texts: Sequence[str], styles: Sequence[str], weights: RewriteWeights, size: int
    ) -> Iterator[tuple[EditSearch, list[int]]]:
        """(search, rows) of at most `size` texts of one style; those of like length waste no place in the arrays."""
        for style in dict.fromkeys(styles):
            if style not in self.languages:
                known = ", ".join(self.languages)
                raise ValueError(f"style={style!r} must be one of {known}; fit the teacher on it too")
            search = EditSearch(
                style, self.evidence, self.languages[style], self.neighbours[style], self.vectors, weights
            )
            rows = [i for i, wanted in enumerate(styles) if wanted == style]
            rows.sort(key=lambda i: len(texts[i]))
            yield from ((search, part) for part in in_batches(rows, size, f"teacher, to {style}"))

    def _rewritten(self, texts: Sequence[str], search: EditSearch, count: int) -> list[list[Rewrite]]:
        """The best rewrites of each of a few texts."""
        parts = [Words.of(text) for text in texts]
        drafts = search.rewrite(padded([self.lexicon.encode(part.words) for part in parts]), count)
        found: list[list[Rewrite]] = [[] for _ in texts]
        for ids, origin, source, logit, score in zip(
            drafts.ids, drafts.origin, drafts.source, drafts.logit, drafts.score, strict=True
        ):
            kept = ids != EDGE
            text = self._text(ids[kept].tolist(), origin[kept].tolist(), parts[source])
            found[source].append(Rewrite(text, float(logit), float(score)))
        return found

    def _text(self, ids: Sequence[int], origin: Sequence[int], source: Words) -> str:
        """The text of a draft: a kept word has the white space it had, a new one that which is usual before it."""
        old = [(source.words[place], source.gaps[place]) if place != INSERTED else None for place in origin]
        new = [(self.lexicon.words[i], self.lexicon.gaps[i]) for i in ids]
        pairs = [before or after for before, after in zip(old, new, strict=True)]
        gaps = [source.gaps[0], *(gap for _, gap in pairs[1:]), source.gaps[-1]]
        return Words(tuple(word for word, _ in pairs), tuple(gaps)).text()


def _check(texts: Sequence[str], styles: Sequence[str], unheard: Sequence[bool]) -> None:
    """Refuses what no teacher could be fitted on."""
    _check_lengths(len(texts), "texts", styles=styles, unheard=unheard)
    if len(named := sorted(set(styles))) < 2:
        raise ValueError(f"styles={named} must name two at least: one is rewritten into another; add their texts")
    _check_heard(styles, [style for style, out in zip(styles, unheard, strict=True) if not out])


def _check_heard(styles: Iterable[str], heard: Iterable[str]) -> None:
    """Refuses to fit evidence of a style without a text of it."""
    if silent := sorted(set(styles) - set(heard)):
        raise ValueError(
            f"unheard holds every text of {', '.join(silent)}; leave some for the evidence to be fitted on"
        )


def _check_lengths(count: int, first: str, **columns: Sequence[object]) -> None:
    """Refuses columns that do not go with `first`, which has `count` entries."""
    for name, column in columns.items():
        if len(column) != count:
            raise ValueError(f"{name} of length {len(column)} must be as long as {first}, {count}; give one for each")
