"""Which words tell a style: n-grams far more frequent in its texts than in those of the other styles."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .words import join_words, split_words

Gram = tuple[str, ...]


@dataclass(frozen=True)
class StyleMarkers:
    """The n-grams u of each style v with s(u, v) = (count(u, D_v) + l) / (sum_v' count(u, D_v') + l) >= threshold.

    `D_v` = the texts of style v, `v'` = every other style, `l` = smoothing. Li et al. 2018 (arXiv 1804.06437), section
    3.1, with two changes. Both counts are scaled to the words of the smaller side, or whatever the smaller one has not
    met by chance would mark the larger. And an n-gram that holds a marker is none itself: the shorter one explains
    it, and "great food" would take the content along. Words count without regard to case.

    Attributes:
        salience: {style: {marker: s}}, the words of a marker joined by one space, the most salient first.

    >>> loud, calm = ["the soup was GREAT !"] * 9, ["the soup was fine ."] * 9
    >>> markers = StyleMarkers.fit(loud + calm, ["loud"] * 9 + ["calm"] * 9, threshold=5.0)
    >>> list(markers.salience["loud"]), markers.delete("A great day!", "loud")
    (['!', 'great'], 'A day')
    """

    salience: Mapping[str, Mapping[str, float]]

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        styles: Sequence[str],
        *,
        threshold: float = 15.0,
        smoothing: float = 1.0,
        longest: int = 4,
    ) -> "StyleMarkers":
        """The markers of `texts`, `styles` naming the style of each; n-grams of at most `longest` words.

        A marker is met `(threshold - 1) * smoothing` times at least, so small data need a lower threshold.

        Raises:
            ValueError: Columns of unequal length, fewer than two styles, an option out of its bounds, or no marker.
        """
        _check(texts, styles, threshold=threshold, smoothing=smoothing, longest=longest)
        corpora: dict[str, list[list[str]]] = {style: [] for style in styles}
        for text, style in zip(texts, styles, strict=True):
            corpora[style].append(_folded(split_words(text)[0]))
        found: dict[str, dict[str, float]] = {style: {} for style in corpora}
        growing: dict[str, set[Gram]] = {style: {()} for style in corpora}
        for length in range(1, longest + 1):
            scores = _scores(corpora, growing, length, smoothing)
            growing = {style: set() for style in corpora}
            for style, gram, count, score in scores:
                if score >= threshold:
                    found[style][" ".join(gram)] = score
                elif count + smoothing >= threshold * smoothing:  # a rarer one cannot be part of a marker
                    growing[style].add(gram)
        if not any(found.values()):
            raise ValueError(
                f"no n-gram of {len(texts)} texts reaches threshold={threshold}; lower it (in a run "
                "marker_threshold, 0 for no markers), or add texts"
            )
        ordered = {style: sorted(grams.items(), key=lambda item: (-item[1], item[0])) for style, grams in found.items()}
        return cls({style: dict(grams) for style, grams in ordered.items()})

    def plain_places(self, words: Sequence[str], style: str) -> list[int]:
        """Places of the words that are in no marker of `style`; of all words where nothing else would be left.

        Raises:
            ValueError: A style that the markers were not fitted to.
        """
        if style not in self.salience:
            raise ValueError(f"style={style!r} must be one of {', '.join(self.salience)}; fit StyleMarkers to it too")
        markers, folded = self.salience[style], _folded(words)
        marked: set[int] = set()
        for length in range(1, self._longest[style] + 1):
            for start, gram in enumerate(_grams(folded, length)):
                if " ".join(gram) in markers:
                    marked.update(range(start, start + length))
        return [i for i in range(len(words)) if i not in marked] or list(range(len(words)))

    def delete(self, text: str, style: str) -> str:
        """`text` without the markers of `style`, and as it is where it consists of them."""
        words, gaps = split_words(text)
        places = self.plain_places(words, style)
        return join_words(words, gaps, places, places) if places else text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` takes them back."""
        return {"salience": {style: dict(grams) for style, grams in self.salience.items()}}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "StyleMarkers":
        """What `to_dict` gave.

        Raises:
            ValueError: No "salience" in `state`.
        """
        if "salience" not in state:
            raise ValueError(f"state with {', '.join(state) or 'nothing'} must hold 'salience'; pass to_dict()'s value")
        return cls({style: dict(grams) for style, grams in state["salience"].items()})

    @cached_property
    def _longest(self) -> dict[str, int]:
        """Words of the longest marker of each style."""
        return {
            style: max((gram.count(" ") + 1 for gram in grams), default=0) for style, grams in self.salience.items()
        }


def _scores(
    corpora: Mapping[str, list[list[str]]], growing: Mapping[str, set[Gram]], length: int, smoothing: float
) -> Iterator[tuple[str, Gram, float, float]]:
    """(style, n-gram, its scaled count, s) for the n-grams of `length` words whose two parts of one word less may grow.

    What cannot become a marker is never counted (Agrawal & Srikant 1994, Apriori): all 4-grams of a large corpus
    would fill the memory.
    """
    parts = set().union(*growing.values())
    counts = {
        style: Counter(g for words in texts for g in _grams(words, length) if g[:-1] in parts and g[1:] in parts)
        for style, texts in corpora.items()
    }
    sizes = {style: max(1, sum(map(len, texts))) for style, texts in corpora.items()}
    for style, own in counts.items():
        here, elsewhere = sizes[style], sum(sizes.values()) - sizes[style]
        unit = min(here, elsewhere)
        for gram, count in own.items():
            if gram[:-1] in growing[style] and gram[1:] in growing[style]:
                others = sum(counts[other][gram] for other in counts if other != style)
                scaled = count * unit / here
                yield style, gram, scaled, (scaled + smoothing) / (others * unit / elsewhere + smoothing)


def _grams(words: Sequence[str], length: int) -> Iterator[Gram]:
    """Each run of `length` words."""
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def _folded(words: Sequence[str]) -> list[str]:
    """Words as they are compared: no case, one way to write an accent."""
    return [unicodedata.normalize("NFC", word.casefold()) for word in words]


def _check(texts: Sequence[str], styles: Sequence[str], *, threshold: float, smoothing: float, longest: int) -> None:
    """Refuses what no markers could be fitted to."""
    if len(texts) != len(styles):
        raise ValueError(f"styles of length {len(styles)} must be as long as texts, {len(texts)}; name one a text")
    if len(named := sorted(set(styles))) < 2:
        raise ValueError(f"styles={named} must name two at least: a marker is what the others lack; add their texts")
    if threshold <= 1:
        raise ValueError(f"threshold={threshold} must be > 1, or words of all styles were markers; 15 suits large data")
    if smoothing <= 0:
        raise ValueError(f"smoothing={smoothing} must be > 0: the other styles may lack the word; 1 is usual")
    if longest < 1:
        raise ValueError(f"longest={longest} must be >= 1; 4 is usual")
