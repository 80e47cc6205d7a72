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


def repetition_rate(texts: Sequence[str], n: int = 3, window: int = 32) -> float:
    """#{t : w_{t-n+1..t} = w_{u-n+1..u} for some u in t-window..t-1} / #{t : t >= n}, 0..1, over all texts.

    The share of words w_t that close an n-gram which their own text held up to `window` words before: near 0 in
    written text, near 1 where a model loops. After rep/w of Welleck et al. (2020), "Neural Text Generation with
    Unlikelihood Training" (arXiv 1908.04319), section 6, which counts single words. 0 where no text has n words.

    >>> repetition_rate(["so it goes and so it goes and so"])  # "so it goes", "it goes and", "goes and so" once more
    0.428...

    Raises:
        ValueError: no text.
    """
    check_lines(texts=texts)
    repeats = [repeat for text in texts for repeat in _repeats(text, n, window)]
    return sum(repeats) / len(repeats) if repeats else 0.0


def same_output_rate(outputs: Sequence[str], sources: Sequence[str]) -> float:
    """(max_y |{x : y was written for x}| - 1) / (|{x}| - 1), 0..1: the share of sources with the commonest output.

    0 where each source got an output of its own, 1 where all got one and the same. Two styles may well give one source
    one output, so sources are counted, not lines. 0 where there is one source only.

    >>> same_output_rate(["yes", "yes", "yes", "no"], ["a", "b", "c", "d"])
    0.666...

    Raises:
        ValueError: no line, or lists of unequal length.
    """
    check_lines(outputs=outputs, sources=sources)
    answered: dict[str, set[str]] = {}
    for output, source in zip(outputs, sources, strict=True):
        answered.setdefault(output, set()).add(source)
    others = len(set(sources)) - 1
    return (max(map(len, answered.values())) - 1) / others if others else 0.0


def _grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """The n-grams of one text, in order."""
    words = text.split()
    return zip(*(words[start:] for start in range(n)), strict=False)


def _repeats(text: str, n: int, window: int) -> Iterator[bool]:
    """Of each n-gram, whether it stood up to `window` words before."""
    last: dict[tuple[str, ...], int] = {}
    for place, gram in enumerate(_grams(text, n)):
        yield gram in last and place - last[gram] <= window
        last[gram] = place
