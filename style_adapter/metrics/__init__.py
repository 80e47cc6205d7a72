"""What is measured on transferred and classified text; needs the extra `style_adapter[eval]` where it is used."""

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
    transfer_table,
)

__all__ = [
    "ClassifierJudge",
    "Difference",
    "Estimate",
    "JointReport",
    "JointScore",
    "Judge",
    "LanguageScorer",
    "LineSums",
    "Number",
    "References",
    "SampleReport",
    "StyleJudge",
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
    "transfer_table",
]
