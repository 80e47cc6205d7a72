"""How varied texts are: words that go round in circles, n-grams that all texts share, one answer to everything.

Words are what whitespace separates, marks and all; nothing is lowered.
"""

import gzip
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from .inputs import check_lines, extra
from .transfer import bleu_of_counts


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


def expected_distinct(texts: Sequence[str], vocabulary: int = 30_522) -> float:
    """EAD = N / (V (1 - ((V - 1) / V)^C)): N different words of all C, over the number that C even draws from V give.

    Liu et al. (2022), "Rethinking and Refining the Distinct Metric" (arXiv 2202.13587). Unlike distinct-1 it does not
    fall as texts grow longer; above 1, words are more varied than even draws. V is by convention BERT's vocabulary.
    0 where there is no word.

    >>> expected_distinct(["a b", "a c"], vocabulary=2)
    1.6

    Raises:
        ValueError: no text, or a vocabulary without a word.
    """
    check_lines(texts=texts)
    if vocabulary < 1:
        raise ValueError(f"vocabulary={vocabulary} must be >= 1; pass the number of different words there could be")
    words = [word for text in texts for word in text.split()]
    expected = vocabulary * (1 - ((vocabulary - 1) / vocabulary) ** len(words))
    return len(set(words)) / expected if words else 0.0


def mutual_bleu(texts: Sequence[str]) -> float:
    """mean_i BLEU(text_i, all other texts), 0..100: 100 where each text is in the others, low where they differ.

    Zhu et al. (2018), "Texygen" (arXiv 1802.01886), who call it self-BLEU; in style transfer that is the BLEU of an
    output to its own source. Smoothed as `sentence_bleu`, so that texts of three words count. 0 for a single text.

    >>> round(mutual_bleu(["it is so", "it is so", "nothing else"]))
    67

    Raises:
        ValueError: no text.
        ImportError: sacrebleu is not installed.
    """
    check_lines(texts=texts)
    tokenize = extra("sacrebleu.tokenizers.tokenizer_13a", "mutual_bleu").Tokenizer13a()
    counts = [Counter(gram for n in range(1, 5) for gram in _grams(tokenize(text), n)) for text in texts]
    return float(bleu_of_counts(_against_others(counts), effective_order=True).mean()) if len(texts) > 1 else 0.0


def compression_ratio(texts: Sequence[str]) -> float:
    """bytes(texts) / bytes(gzip(texts)), one text a line: what repeats in words, phrases or whole lines compresses.

    Shaib et al. (2024), "Standardizing the Measurement of Text Diversity" (arXiv 2403.00553), where it
    stands for many slower scores; lower is more varied. It grows with the number of texts: compare equal numbers.

    >>> compression_ratio(["so it goes"] * 50) > compression_ratio(["so it goes", "and so on"]) > 0
    True

    Raises:
        ValueError: no text.
    """
    check_lines(texts=texts)
    joined = "\n".join(texts).encode("utf-8", "replace")
    return len(joined) / len(gzip.compress(joined, compresslevel=9))


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


def _against_others(counts: Sequence[Counter[tuple[str, ...]]]) -> Float[np.ndarray, "texts 10"]:
    """`bleu_counts` of each text with all others as its references, in one pass over the n-grams of all texts."""
    most: Counter[tuple[str, ...]] = Counter()
    second: Counter[tuple[str, ...]] = Counter()
    for grams in counts:
        for gram, count in grams.items():
            _, second[gram], most[gram] = sorted((second[gram], most[gram], count))
    lengths = np.array([sum(count for gram, count in grams.items() if len(gram) == 1) for grams in counts])
    found = np.zeros((len(counts), 10))
    found[:, 0] = lengths
    for i, grams in enumerate(counts):
        others = np.delete(lengths, i)
        found[i, 1] = others[np.argmin(abs(others - lengths[i]) + (others > lengths[i]) / 2)]  # of two the shorter
        for gram, count in grams.items():
            elsewhere = second[gram] if count == most[gram] else most[gram]  # without this text's own
            found[i, 1 + len(gram) : 10 : 4] += min(count, elsewhere), count
    return found


def _repeats(text: str, n: int, window: int) -> Iterator[bool]:
    """Of each n-gram, whether it stood up to `window` words before."""
    last: dict[tuple[str, ...], int] = {}
    for place, gram in enumerate(_grams(text, n)):
        yield gram in last and place - last[gram] <= window
        last[gram] = place
