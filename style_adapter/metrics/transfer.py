"""How well text was carried into a style: distance to references and sources, scores by direction.

BLEU and chrF need sacrebleu, in the extra `style_adapter[eval]`, imported at first use. Texts are lists of strings,
one a line; lists that belong together have equal lengths.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from .inputs import check_lines, extra
from .judge import Judge, style_accuracy

References = Sequence[str] | Sequence[Sequence[str]]
"""One reference a line, or a list of references a line (the lists may differ in length)."""


def bleu(hypotheses: Sequence[str], references: References) -> float:
    """100 BP exp(1/4 sum_{n=1..4} ln p_n), 0..100, over the whole corpus.

    p_n is the share of the hypotheses' n-grams that their references hold (each counted at most as often as in one
    reference), BP = exp(min(0, 1 - r/c)) the brevity penalty for c words against r in the nearest references.
    Papineni et al. (2002), "BLEU"; tokens and settings are sacrebleu's defaults, cased "13a": Post (2018), "A Call
    for Clarity in Reporting BLEU Scores".

    >>> round(bleu(["the cat sat on the mat"], [["a cat sat on a mat", "the cat sat on the mat"]]), 6)
    100.0

    Raises:
        ValueError: no line, lists of unequal length, or a line without reference.
        ImportError: sacrebleu is not installed.
    """
    return float(bleu_of_counts(bleu_counts(hypotheses, references).sum(axis=0, keepdims=True))[0])


def bleu_counts(hypotheses: Sequence[str], references: References, **options: Any) -> Float[np.ndarray, "lines 10"]:
    """Of each line (c_i, r_i, hits_i1..4, total_i1..4), the counts whose sums over lines make BLEU.

    c are the words of the hypothesis, r those of the reference nearest in length, hits_n its n-grams that a reference
    holds (clipped), total_n all of them. `options` are those of sacrebleu's BLEU, such as `lowercase` and `tokenize`.

    Raises:
        ValueError: no line, lists of unequal length, or a line without reference.
        ImportError: sacrebleu is not installed.
    """
    by_line = reference_lists(hypotheses, references)
    metric = extra("sacrebleu", "bleu").BLEU(effective_order=True, **options)  # it says so where a line is scored
    scores = [metric.sentence_score(text, line) for text, line in zip(hypotheses, by_line, strict=True)]
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], dtype=float)


def bleu_of_counts(
    sums: Float[np.ndarray, "samples 10"], *, effective_order: bool = False
) -> Float[np.ndarray, " samples"]:
    """BLEU, 0..100, of each row of summed `bleu_counts`; by `effective_order` for single lines."""
    compute = extra("sacrebleu", "bleu").BLEU.compute_bleu
    rows = sums.astype(int).tolist()
    settings = {"smooth_method": "exp", "effective_order": effective_order}  # sacrebleu's own, of corpus and of line
    return np.array([compute(row[2:6], row[6:], *row[:2], **settings).score for row in rows])


def sentence_bleu(hypotheses: Sequence[str], references: References) -> list[float]:
    """BLEU of each line by itself, 0..100, with zero counts smoothed and orders no longer than the line.

    For a look at single lines; a corpus is judged by `bleu`, which is not the mean of these. Smoothing is sacrebleu's
    "exp": Chen and Cherry (2014), "A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU", method 3.

    >>> [round(score) for score in sentence_bleu(["he said", "no"], ["he said", "yes"])]
    [100, 0]

    Raises:
        ValueError: no line, lists of unequal length, or a line without reference.
        ImportError: sacrebleu is not installed.
    """
    return bleu_of_counts(bleu_counts(hypotheses, references), effective_order=True).tolist()


def sentence_chrf(hypotheses: Sequence[str], references: References) -> list[float]:
    """chrF_i = (1 + 4) P_i R_i / (4 P_i + R_i) of each line, 0..1: of several references the best one.

    P and R are the means, over n = 1..6, of the shares of n-grams of letters that hypothesis and reference have in
    common, spaces left out; a copied reference has 1. Popovic (2015), "chrF: character n-gram F-score for automatic MT
    evaluation", eq. 1 with beta = 2; settings are sacrebleu's defaults. It grades single sentences, half words too,
    where BLEU of four words in a row is mostly 0.

    >>> [round(score, 2) for score in sentence_chrf(["he said", "he says", "no"], ["he said", "he said", "he said"])]
    [1.0, 0.35, 0.0]

    Raises:
        ValueError: no line, lists of unequal length, or a line without reference.
        ImportError: sacrebleu is not installed.
    """
    by_line = reference_lists(hypotheses, references)
    metric = extra("sacrebleu", "sentence_chrf").CHRF()
    scores = [metric.sentence_score(text, line).score for text, line in zip(hypotheses, by_line, strict=True)]
    return [float(score) / 100 for score in scores]


def copy_rate(hypotheses: Sequence[str], sources: Sequence[str]) -> float:
    """mean_i [hypothesis_i = source_i], 0..1, whitespace aside: the share of lines that changed nothing.

    >>> copy_rate(["he said ", "thou art"], ["he said", "you are"])
    0.5

    Raises:
        ValueError: no line, or lists of unequal length.
    """
    return float(np.mean(copies(hypotheses, sources)))


def copies(hypotheses: Sequence[str], sources: Sequence[str]) -> list[bool]:
    """[hypothesis_i = source_i] of each line, whitespace aside.

    Raises:
        ValueError: no line, or lists of unequal length.
    """
    check_lines(hypotheses=hypotheses, sources=sources)
    return [text.split() == source.split() for text, source in zip(hypotheses, sources, strict=True)]


def best_cosine(
    hypotheses: Sequence[str], references: References, encode: Callable[[list[str]], Float[np.ndarray, "texts dim"]]
) -> list[float]:
    """max_r cos(e(hypothesis_i), e(r)) of each line, over its references r, -1..1; `encode` is e.

    >>> one_hot = lambda texts: np.array([[text == "a", text == "b"] for text in texts], dtype=float)
    >>> best_cosine(["a", "b"], [["b"], ["b", "a"]], one_hot)
    [0.0, 1.0]

    Raises:
        ValueError: no line, lists of unequal length, or a line without reference.
    """
    by_line = reference_lists(hypotheses, references)
    texts = list(dict.fromkeys([*hypotheses, *(text for line in by_line for text in line)]))
    vectors = encode(texts)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = dict(zip(texts, vectors / np.maximum(lengths, np.finfo(lengths.dtype).tiny), strict=True))
    return [float(max(unit[text] @ unit[r] for r in line)) for text, line in zip(hypotheses, by_line, strict=True)]


def repeat_rate(texts: Sequence[str], known: Iterable[str]) -> float:
    """mean_i [text_i is one of `known`], 0..1, whitespace aside: the share of texts that were learnt by heart.

    >>> repeat_rate(["he  said", "thou art"], ["he said", "you are"])
    0.5

    Raises:
        ValueError: no text.
    """
    check_lines(texts=texts)
    seen = {" ".join(text.split()) for text in known}
    return float(np.mean([" ".join(text.split()) in seen for text in texts]))


@dataclass(frozen=True)
class TransferScore:
    """How well text was carried into one style."""

    style_accuracy: float
    """Share of the outputs that the judge takes for the wanted style, 0..1."""
    bleu: float
    """BLEU of the outputs against the references, 0..100."""
    self_bleu: float
    """BLEU of the outputs against their own sources, 0..100; 100 is a copy."""

    def to_dict(self) -> dict[str, float]:
        """The three numbers by name, ready for JSON."""
        return asdict(self)


def score_transfer(
    outputs: Sequence[str],
    sources: Sequence[str],
    references: References,
    styles: Sequence[str],
    *,
    judge: Judge,
) -> dict[str, TransferScore]:
    """One score a direction, in the order in which the directions first appear; a line's direction is its target style.

    `styles[i]` is the style that `outputs[i]` should be in. Text without references takes `references=sources`: then
    `bleu` is `self_bleu`.

    Raises:
        ValueError: no line, lists of unequal length, a line without reference, or a style unknown to the judge.
        ImportError: scikit-learn or sacrebleu is not installed.
    """
    check_lines(outputs=outputs, sources=sources, styles=styles)
    by_line = reference_lists(outputs, references)
    scores: dict[str, TransferScore] = {}
    for style in dict.fromkeys(styles):
        rows = [i for i, wanted in enumerate(styles) if wanted == style]
        texts = [outputs[i] for i in rows]
        scores[style] = TransferScore(
            style_accuracy=style_accuracy(texts, [style] * len(texts), judge),
            bleu=bleu(texts, [by_line[i] for i in rows]),
            self_bleu=bleu(texts, [sources[i] for i in rows]),
        )
    return scores


def reference_lists(hypotheses: Sequence[str], references: References) -> list[list[str]]:
    """The references of each hypothesis as a list; raises where lines do not pair up or one has no reference."""
    if isinstance(references, str):
        raise TypeError(f"references={references!r} must be a list with one entry a line; pass [{references!r}]")
    by_line = [[line] if isinstance(line, str) else list(line) for line in references]
    check_lines(hypotheses=hypotheses, references=by_line)
    if [] in by_line:
        raise ValueError(f"references[{by_line.index([])}]=[] must hold at least one reference; drop that line")
    return by_line
