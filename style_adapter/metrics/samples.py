"""What a run's samples look like: the numbers that show a copier, a loop or a collapse before any score does."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .diversity import distinct_n, repetition_rate, same_output_rate
from .judge import Judge, right_styles
from .transfer import copy_rate, sentence_chrf


@dataclass(frozen=True)
class SampleReport:
    """Sample statistics, from texts alone; needs no reference."""

    style_accuracy: float | None
    """Share of the outputs that the judge takes for the wanted style, 0..1; None without a judge."""
    copy_rate: float | None
    """Share of the outputs that are their sources, 0..1; None without sources."""
    repetition_rate: float
    """Share of the words that close a trigram of the last 32 words, 0..1."""
    distinct_2: float
    """Different bigrams among all bigrams of the outputs, 0..1."""
    same_output: float
    """Share of the sources (of the outputs, without any) with the commonest output, 0..1: 1 is one answer to all."""
    content: float | None
    """Mean chrF of the outputs to their sources, 0..1; a copy has 1; None without sources."""
    length_ratio: float | None
    """Mean ratio of the outputs' words to their sources'; None without sources."""

    @classmethod
    def of(
        cls, outputs: Sequence[str], sources: Sequence[str] | None, styles: Sequence[str], *, judge: Judge | None
    ) -> "SampleReport":
        """The statistics of `outputs`, rewritten from `sources`, or written without any, and wanted in `styles`.

        >>> report = SampleReport.of(["a b", "c d"], ["a b", "c d e f"], ["old", "new"], judge=None)
        >>> report.style_accuracy, report.copy_rate, report.distinct_2, report.length_ratio
        (None, 0.5, 1.0, 0.75)

        Raises:
            ValueError: no line, or lists of unequal length.
            ImportError: sacrebleu is not installed.
        """
        places = [str(place) for place in range(len(outputs))]
        return cls(
            style_accuracy=None if judge is None else float(np.mean(right_styles(outputs, styles, judge))),
            copy_rate=None if sources is None else copy_rate(outputs, sources),
            repetition_rate=repetition_rate(outputs),
            distinct_2=distinct_n(outputs, 2),
            same_output=same_output_rate(outputs, places if sources is None else sources),
            content=None if sources is None else float(np.mean(sentence_chrf(outputs, sources))),
            length_ratio=None if sources is None else _length_ratio(outputs, sources),
        )

    def to_dict(self) -> dict[str, float]:
        """The numbers by name, ready for JSON; what is None is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _length_ratio(outputs: Sequence[str], sources: Sequence[str]) -> float:
    """mean_i |y_i| / |x_i| in words; an empty source counts as one word."""
    pairs = zip(outputs, sources, strict=True)
    return float(np.mean([len(output.split()) / max(1, len(source.split())) for output, source in pairs]))
