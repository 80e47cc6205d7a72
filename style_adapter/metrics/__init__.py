"""What is measured on transferred and classified text; needs the extra `style_adapter[eval]` where it is used."""

from .diversity import distinct_n, repetition_rate, same_output_rate
from .joint import JointReport, JointScore, joint_report, relative_fluency
from .judge import StyleJudge, class_scores, right_styles
from .samples import SampleReport
from .transfer import (
    TransferScore,
    bleu,
    copy_rate,
    repeat_rate,
    score_transfer,
    sentence_bleu,
    sentence_chrf,
    transfer_table,
)

__all__ = [
    "JointReport",
    "JointScore",
    "SampleReport",
    "StyleJudge",
    "TransferScore",
    "bleu",
    "class_scores",
    "copy_rate",
    "distinct_n",
    "joint_report",
    "relative_fluency",
    "repeat_rate",
    "repetition_rate",
    "right_styles",
    "same_output_rate",
    "score_transfer",
    "sentence_bleu",
    "sentence_chrf",
    "transfer_table",
]
