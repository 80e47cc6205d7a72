"""Words as numbers, and back to a text with the white space that is usual before each word."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..corruption import join_words, split_words

EDGE, RARE = 0, 1  # the border of a text, and the padding behind it; any word that the lexicon does not hold
BITS = 16  # of a word's number, so that four words, or three and their count, make a code of 64
MOST_WORDS = 2**BITS


@dataclass(frozen=True)
class Words:
    """A text in parts: `gaps[i]` is the white space before `words[i]`; one more gap ends the text."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Words":
        """The parts of a text."""
        words, gaps = split_words(text)
        return cls(tuple(words), tuple(gaps))

    def text(self) -> str:
        """The text again."""
        places = range(len(self.words))
        return join_words(self.words, self.gaps, places, places) if self.words else "".join(self.gaps)


@dataclass(frozen=True)
class Lexicon:
    """The commonest words of a corpus, numbered from 2 on in the order of their counts.

    Attributes:
        words: By number; the first two stand for the edge of a text and for a rare word.
        gaps: The commonest white space before each word.
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def fit(cls, texts: Iterable[Words], *, least: int = 2) -> "Lexicon":
        """The words that stand at least `least` times in `texts`."""
        counts: Counter[str] = Counter()
        gaps: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for text in texts:
            counts.update(text.words)
            for word, gap in zip(text.words[1:], text.gaps[1:], strict=False):
                gaps[word][gap] += 1
        kept = [word for word, count in counts.most_common(MOST_WORDS - 2) if count >= least]
        usual = [gaps[word].most_common(1)[0][0] if gaps[word] else " " for word in kept]
        return cls(("", "", *kept), ("", " ", *usual))

    def encode(self, words: Sequence[str]) -> list[int]:
        """The numbers of words."""
        return [self._ids.get(word, RARE) for word in words]

    @cached_property
    def _ids(self) -> dict[str, int]:
        """The number of each word."""
        return {word: i for i, word in enumerate(self.words) if i > RARE}
