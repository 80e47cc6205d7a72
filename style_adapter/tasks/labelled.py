"""What tasks have in common whose answers are labels: nothing is written, nothing judged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..data import ClassificationCollator
from ..functional import IGNORED
from ..inference import pad_id
from ..model import styles_of
from .setting import Setting

Collator = Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]]


class LabelTask:
    """Rows whose answers are labels: one a row, one a word, or masked tokens."""

    @staticmethod
    def collator(setting: Setting, dataset: Any, rows: Any) -> Collator:
        """Rows -> tensors."""
        return ClassificationCollator(pad_id(setting.tokenizer), setting.encode_styles, setting.draws)

    @staticmethod
    def count(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Labels, which divide the likelihood, no judged rows, and none to translate back."""
        none = batch["labels"].new_zeros(())
        return (batch["labels"] != IGNORED).sum(), none, none

    @staticmethod
    def judge_of(dataset: Any, setting: Setting) -> None:
        """Labels need no judge."""

    @staticmethod
    def orders(rows: Any, setting: Setting) -> None:
        """It writes no text."""


def tokenized(tokenize: Callable[..., Any], dataset: Any, setting: Setting) -> Any:
    """`dataset` as one of `data`'s functions makes it; rows without a style get the default one."""
    default, most = styles_of(setting.model).default, setting.args.max_length
    return tokenize(dataset, setting.tokenizer, default_style=default, max_length=most)


def check_head(most: int, setting: Setting) -> None:
    """Refuses a class that the model's head does not have, `most` being the highest of the data.

    Raises:
        ValueError: Such a class.
    """
    classes = setting.model.config.num_labels
    if most >= classes:
        raise ValueError(f"label {most} must be < num_labels={classes}; load the backbone with num_labels={most + 1}")
