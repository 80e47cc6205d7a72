"""Words sorted into classes by the model's own head."""

from typing import Any

from ..data import tokenize_token_classification
from ..functional import IGNORED
from ..inference import tag
from ..metrics import class_scores
from .labelled import LabelTask, check_head, tokenized
from .setting import Setting


class TokenClassificationTask(LabelTask):
    """words -> a label each by the model's own head; likelihood a labelled word, accuracy and macro-F1 over words."""

    @staticmethod
    def tokenize(dataset: Any, setting: Setting) -> Any:
        """`dataset` as the collator reads it.

        Raises:
            ValueError: A class that the model's head does not have.
        """
        check_head(max(label for labels in dataset["label"] for label in labels), setting)
        return tokenized(tokenize_token_classification, dataset, setting)

    @staticmethod
    def predict(rows: Any, setting: Setting) -> list[list[int]]:
        """The most likely class of each word."""
        styles = rows["style"] if "style" in rows.column_names else None
        batch_size = setting.args.per_device_eval_batch_size
        return tag(setting.model, setting.tokenizer, rows["text"], styles, batch_size=batch_size)

    @staticmethod
    def score(predictions: list[list[int]], rows: Any, setting: Setting) -> dict[str, float]:
        """Accuracy and macro-F1 over the words that have a label, 0 to 1; `style_score` is macro-F1.

        Most words of a text are of one class, the one of no entity: the share of right words hides the others.
        """
        said = [predicted for words in predictions for predicted in words]
        true = [label for labels in rows["label"] for label in labels]
        pairs = [(predicted, label) for predicted, label in zip(said, true, strict=True) if label != IGNORED]
        scores = class_scores([predicted for predicted, _ in pairs], [label for _, label in pairs])
        return {**scores, "style_score": scores["macro_f1"]}
