"""How well text was carried into a style: distance to references and sources, the score of a run, its table.

BLEU needs sacrebleu, in the extra `style_adapter[eval]`, imported at first use. Texts are lists of strings, one a line;
lists that belong together have equal lengths.
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


def style_score(scores: Mapping[str, TransferScore]) -> float:
    """mean_d style_accuracy_d bleu_d / 100 over directions d, 0..1: the number that early stopping maximises.

    A product of corpus averages can be gamed: copy some lines for their content and make style without content of the
    others, and both averages look fair though no line is good (Krishna et al. 2020, "Reformulating Unsupervised
    Style Transfer as Paraphrase Generation"). It serves to compare checkpoints of one run on *paired* data, where
    copying everything does not pay: the judge finds a copy in the wrong style. Against the sources as references
    (BLEU 100 for a copy) it is weaker: report `copy_rate` with it.

    >>> style_score({"kjv": TransferScore(0.9, 50.0, 40.0), "modern": TransferScore(0.5, 60.0, 70.0)})
    0.375

    Raises:
        ValueError: no direction.
    """
    if not scores:
        raise ValueError("scores={} must hold at least one direction; pass what score_transfer returned")
    return float(np.mean([score.style_accuracy * score.bleu / 100 for score in scores.values()]))


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
