"""What is measured on transferred and classified text; needs the extra `style_adapter[eval]` where it is used."""

from .diversity import distinct_n
from .judge import StyleJudge, class_scores
from .transfer import (
    TransferScore,
    bleu,
    copy_rate,
    repeat_rate,
    score_transfer,
    sentence_bleu,
    style_score,
    transfer_table,
)

__all__ = [
    "StyleJudge",
    "TransferScore",
    "bleu",
    "class_scores",
    "copy_rate",
    "distinct_n",
    "repeat_rate",
    "score_transfer",
    "sentence_bleu",
    "style_score",
    "transfer_table",
]
