"""The before/after table: the copied input, the frozen backbone and the adapter, on the same rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from .metrics import StyleJudge, TransferScore, score_transfer, transfer_table
from .model import styles_of
from .pipeline import transfer
from .style import OFF


@dataclass(frozen=True)
class Evaluation:
    """Scores and outputs of the three rows of the table, on the same texts.

    Attributes:
        scores: "copy", "before" and "after" -> direction -> score.
        outputs: The texts behind them, by the same names.
    """

    scores: dict[str, dict[str, TransferScore]]
    outputs: dict[str, list[str]]

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """{"copy" | "before" | "after": {direction: {"style_accuracy", "bleu", "self_bleu"}}}."""
        return {row: {d: score.to_dict() for d, score in found.items()} for row, found in self.scores.items()}

    def table(self) -> str:
        """The Markdown table."""
        return transfer_table(self.scores)

    def save(self, path: str | Path) -> None:
        """Writes the scores as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", "utf-8")


def before_after(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset | Mapping[str, Sequence[Any]],
    *,
    judge: StyleJudge,
    batch_size: int = 32,
) -> Evaluation:
    """Rewrites `rows` (columns `source`, `target`, `style`) with the adapter off and on, and scores both and the copy.

    Args:
        model: A trained model.
        tokenizer: The backbone's.
        rows: Test rows; the judge must not have been fitted on them.
        judge: Tells the styles apart.
        batch_size: Texts generated at once.
    """
    bank = styles_of(model)
    sources, styles = list(rows["source"]), [bank.parse(style) for style in rows["style"]]
    outputs = {
        "copy": sources,
        "before": transfer(model, tokenizer, sources, OFF, batch_size=batch_size),
        "after": transfer(model, tokenizer, sources, styles, batch_size=batch_size),
    }
    names, targets = bank.labels(styles), list(rows["target"])
    scores = {row: score_transfer(texts, sources, targets, names, judge=judge) for row, texts in outputs.items()}
    return Evaluation(scores, outputs)
