"""How well text was carried into a style: distance to references and sources, scores by direction, their table.

BLEU and chrF need sacrebleu, in the extra `style_adapter[eval]`, imported at first use. Texts are lists of strings,
one a line; lists that belong together have equal lengths.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .inputs import check_lines, extra
from .judge import StyleJudge

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
    by_line = _reference_lists(hypotheses, references)
    most = max(map(len, by_line))
    # sacrebleu wants one whole corpus a reference, and None where a line has fewer references than others.
    streams = [[line[k] if k < len(line) else None for line in by_line] for k in range(most)]
    return float(extra("sacrebleu", "bleu").BLEU().corpus_score(list(hypotheses), streams).score)


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
    by_line = _reference_lists(hypotheses, references)
    metric = extra("sacrebleu", "sentence_bleu").BLEU(effective_order=True)
    return [float(metric.sentence_score(text, line).score) for text, line in zip(hypotheses, by_line, strict=True)]


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
    by_line = _reference_lists(hypotheses, references)
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
    check_lines(hypotheses=hypotheses, sources=sources)
    return float(np.mean([text.split() == source.split() for text, source in zip(hypotheses, sources, strict=True)]))


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
    judge: StyleJudge,
) -> dict[str, TransferScore]:
    """One score a direction, in the order in which the directions first appear; a line's direction is its target style.

    `styles[i]` is the style that `outputs[i]` should be in. Text without references takes `references=sources`: then
    `bleu` is `self_bleu`.

    Raises:
        ValueError: no line, lists of unequal length, a line without reference, or a style unknown to the judge.
        ImportError: scikit-learn or sacrebleu is not installed.
    """
    check_lines(outputs=outputs, sources=sources, styles=styles)
    by_line = _reference_lists(outputs, references)
    scores: dict[str, TransferScore] = {}
    for style in dict.fromkeys(styles):
        rows = [i for i, wanted in enumerate(styles) if wanted == style]
        texts = [outputs[i] for i in rows]
        scores[style] = TransferScore(
            style_accuracy=judge.accuracy(texts, [style] * len(texts)),
            bleu=bleu(texts, [by_line[i] for i in rows]),
            self_bleu=bleu(texts, [sources[i] for i in rows]),
        )
    return scores


def transfer_table(rows: Mapping[str, Mapping[str, TransferScore]]) -> str:
    """A Markdown table, aligned as plain text too: for each direction one line a named run, runs in the given order.

    >>> print(transfer_table({"copy": {"kjv": TransferScore(0.06, 47.5, 100.0)}}))
    | to  | run  | style accuracy | BLEU | self-BLEU |
    | --- | ---- | -------------: | ---: | --------: |
    | kjv | copy |          0.060 | 47.5 |     100.0 |

    Raises:
        ValueError: no run.
    """
    if not rows:
        raise ValueError('rows={} must hold at least one run; pass {"after": score_transfer(...)}')
    directions = dict.fromkeys(style for scores in rows.values() for style in scores)
    cells = [("to", "run", "style accuracy", "BLEU", "self-BLEU")]
    cells += [
        (style, run, f"{score.style_accuracy:.3f}", f"{score.bleu:.1f}", f"{score.self_bleu:.1f}")
        for style in directions
        for run, scores in rows.items()
        if (score := scores.get(style)) is not None
    ]
    sides = "<<>>>"
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rules = ["-" * width if side == "<" else "-" * (width - 1) + ":" for side, width in zip(sides, widths, strict=True)]
    table = [cells[0], rules, *cells[1:]]
    padded = [[f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)] for row in table]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def _reference_lists(hypotheses: Sequence[str], references: References) -> list[list[str]]:
    """The references of each hypothesis as a list; raises where lines do not pair up or one has no reference."""
    if isinstance(references, str):
        raise TypeError(f"references={references!r} must be a list with one entry a line; pass [{references!r}]")
    by_line = [[line] if isinstance(line, str) else list(line) for line in references]
    check_lines(hypotheses=hypotheses, references=by_line)
    if [] in by_line:
        raise ValueError(f"references[{by_line.index([])}]=[] must hold at least one reference; drop that line")
    return by_line
