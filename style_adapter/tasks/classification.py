"""Texts sorted into classes by the model's own head."""

from typing import Any

from torch import Tensor

from ..data import ClassificationCollator, tokenize_classification
from ..functional import IGNORED
from ..metrics import class_scores
from ..model import styles_of
from ..pipeline import classify, pad_id
from .setting import Setting


class ClassificationTask:
    """text -> label by the model's own head, the style classifier; accuracy and macro-F1."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it.

        Raises:
            ValueError: A class that the model's head does not have.
        """
        check_head(max(dataset["label"]), setting)
        return tokenize_classification(
            dataset,
            setting.tokenizer,
            default_style=styles_of(setting.model).default,
            max_length=setting.args.max_length,
        )

    @staticmethod
    def collator(setting: Setting, dataset: Any, rows: Any) -> ClassificationCollator:
        """Rows -> tensors."""
        return ClassificationCollator(pad_id(setting.tokenizer), setting.encode_styles, setting.draws)

    @staticmethod
    def count(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Labelled rows, none judged, and none to translate back."""
        none = batch["labels"].new_zeros(())
        return (batch["labels"] != IGNORED).sum(), none, none

    @staticmethod
    def judge_of(dataset: Any, setting: Setting) -> None:
        """Labels need no judge."""

    @staticmethod
    def orders(rows: Any, setting: Setting) -> None:
        """It writes no text."""

    @staticmethod
    def predict(rows: Any, setting: Setting) -> list[int]:
        """The most likely class of each text."""
        styles = rows["style"] if "style" in rows.column_names else None
        pairs = rows["text_pair"] if "text_pair" in rows.column_names else None
        return classify(
            setting.model,
            setting.tokenizer,
            rows["text"],
            styles,
            text_pairs=pairs,
            batch_size=setting.args.per_device_eval_batch_size,
        )

    @staticmethod
    def score(predictions: list[int], rows: Any, setting: Setting) -> dict[str, float]:
        """Accuracy and macro-F1, 0 to 1; `style_score` is the accuracy."""
        scores = class_scores(predictions, rows["label"])
        return {**scores, "style_score": scores["accuracy"]}


def check_head(most: int, setting: Setting) -> None:
    """Refuses a class that the model's head does not have, `most` being the highest of the data."""
    classes = setting.model.config.num_labels
    if most >= classes:
        raise ValueError(f"label {most} must be < num_labels={classes}; load the backbone with num_labels={most + 1}")
