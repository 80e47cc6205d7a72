"""Texts sorted into classes by the model's own head."""

from typing import Any

from ..data import tokenize_classification
from ..inference import classify
from ..metrics import class_scores
from .labelled import LabelTask, check_head, tokenized
from .setting import Setting


class ClassificationTask(LabelTask):
    """text -> label by the model's own head, the style classifier; accuracy and macro-F1."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it.

        Raises:
            ValueError: A class that the model's head does not have.
        """
        check_head(max(dataset["label"]), setting)
        return tokenized(tokenize_classification, dataset, setting)

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
