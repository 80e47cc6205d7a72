"""How varied texts are: words that go round in circles, n-grams that all texts share, one answer to everything.

Words are what whitespace separates, marks and all; nothing is lowered.
"""

from collections.abc import Iterator, Sequence

from .inputs import check_lines


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """|{n-grams of all texts}| / (number of n-grams of all texts), 0..1: 1 where none occurs twice, or there is none.

    Li et al. (2016), "A Diversity-Promoting Objective Function for Neural Conversation Models" (arXiv 1510.03055),
    section 4.3, there over the number of words. It falls with the number of texts: compare equal numbers of them.

    >>> distinct_n(["a b a b", "a b"]), distinct_n(["a b", "a b", "a b", "a b"]), distinct_n(["a"])
    (0.5, 0.25, 1.0)

    Raises:
        ValueError: no text.
    """
    check_lines(texts=texts)
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 1.0


def _grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """The n-grams of one text, in order."""
    words = text.split()
    return zip(*(words[start:] for start in range(n)), strict=False)
