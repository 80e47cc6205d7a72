"""Texts as words and the space between them, in any script, such that joining them gives the text back."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

_HYPHENS = "'\u2019-"  # inside a word they are part of it
# Over the kinds of characters: a run of letters, its hyphens inside; or one other sign. Marks go with what they mark.
_WORD = re.compile("[wm]+(?:j[wm]+)*|[jpc]m*")


def split_words(text: str) -> tuple[list[str], list[str]]:
    """(words, gaps): `gaps[i]` is the white space before `words[i]`, and one more gap ends the text.

    A word is a run of letters, digits and symbols with the apostrophes and hyphens inside it; each other punctuation
    mark is a word, and so is each character of Chinese and Japanese, which put no space between words.

    >>> split_words("Don't  go, 你好!")
    (["Don't", 'go', ',', '你', '好', '!'], ['', '  ', '', ' ', '', '', ''])
    """
    spans = [match.span() for match in _WORD.finditer("".join(map(_kind, text)))]
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    return [text[a:b] for a, b in spans], [text[a:b] for a, b in zip(ends, starts, strict=True)]


def join_words(words: Sequence[str], gaps: Sequence[str], places: Sequence[int], order: Iterable[int]) -> str:
    """The text of some of its words: `words[i]` for i of `order`, in the gaps that stood before `places`.

    The white space around the whole text stays, and a blank keeps two words apart that would run into one.

    >>> words, gaps = split_words("a b, c")
    >>> join_words(words, gaps, [1, 2, 3], [1, 2, 3]), join_words(words, gaps, [0, 1, 2, 3], [0, 1, 3, 2])
    ('b, c', 'a b c ,')
    """
    text, letters = "", False
    for gap, i in zip([gaps[0], *(gaps[place] for place in places[1:])], order, strict=True):
        after_letters, letters = letters, _kind(words[i][0]) in "wm"
        text += (gap or " " * (after_letters and letters)) + words[i]
    return text + gaps[-1]


@cache
def _kind(character: str) -> str:
    """s(pace), j(oining mark), c(haracter that is a word), m(ark on another), p(unctuation) or w(ord) otherwise."""
    category = unicodedata.category(character)
    if character.isspace() or character in _HYPHENS:
        return "s" if character.isspace() else "j"
    # Hangul is as wide as Chinese, but Korean does put space between words.
    if category == "Lo" and unicodedata.east_asian_width(character) == "W" and not "가" <= character <= "힣":
        return "c"
    return {"M": "m", "P": "p"}.get(category[0], "w")
