"""What is measured on transferred and classified text; needs the extra `style_adapter[eval]` where it is used.

Functions give plain numbers. The classes in `modules`, imported at first use, are the library `evaluate`'s metrics over
them: by direction, with intervals and a paired test.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .diversity import (
    compression_ratio,
    distinct_n,
    expected_distinct,
    mutual_bleu,
    repetition_rate,
    same_output_rate,
)
from .inputs import check_lines
from .intervals import Difference, Estimate, LineSums, Number, TextNumber, difference, groups_of
from .joint import JointReport, JointScore, joint_report, relative_fluency
from .judge import (
    ClassifierJudge,
    Judge,
    StyleJudge,
    check_styles,
    check_unseen,
    class_scores,
    judge_named,
    line_hashes,
    right_styles,
    style_accuracy,
)
from .likelihood import LanguageScorer
from .samples import SampleReport
from .tables import markdown_table
from .transfer import (
    References,
    TransferScore,
    bleu,
    copy_rate,
    reference_lists,
    repeat_rate,
    score_transfer,
    sentence_bleu,
    sentence_chrf,
)

if TYPE_CHECKING:
    from .modules import (
        ChrF,
        ContentBLEU,
        CopyRate,
        Diversity,
        Fluency,
        Joint,
        SemanticSimilarity,
        StyleAccuracy,
        TextMetric,
    )

_CLASSES = (
    "ChrF",
    "ContentBLEU",
    "CopyRate",
    "Diversity",
    "Fluency",
    "Joint",
    "SemanticSimilarity",
    "StyleAccuracy",
    "TextMetric",
)

__all__ = [
    "ChrF",
    "ClassifierJudge",
    "ContentBLEU",
    "CopyRate",
    "Difference",
    "Diversity",
    "Estimate",
    "Fluency",
    "Joint",
    "JointReport",
    "JointScore",
    "Judge",
    "LanguageScorer",
    "LineSums",
    "Number",
    "References",
    "SampleReport",
    "SemanticSimilarity",
    "StyleAccuracy",
    "StyleJudge",
    "TextMetric",
    "TextNumber",
    "TransferScore",
    "bleu",
    "check_lines",
    "check_styles",
    "check_unseen",
    "class_scores",
    "compression_ratio",
    "copy_rate",
    "difference",
    "distinct_n",
    "expected_distinct",
    "groups_of",
    "joint_report",
    "judge_named",
    "line_hashes",
    "markdown_table",
    "mutual_bleu",
    "reference_lists",
    "relative_fluency",
    "repeat_rate",
    "repetition_rate",
    "right_styles",
    "same_output_rate",
    "score_transfer",
    "sentence_bleu",
    "sentence_chrf",
    "style_accuracy",
]


def __getattr__(name: str) -> Any:
    """A class of `modules`, at whose first use the library `evaluate` is imported."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".modules", __name__), name)
