"""What a data set must have: its columns by task, checked once, before any time is spent."""

from collections.abc import Callable
from typing import Any

from ..columns import COLUMNS, TEXT_COLUMNS
from ..functional import IGNORED
from .token_classification import words_of


def kind_of_rows(dataset: Any, task: str) -> str:
    """What the rows of a task are: those to be rewritten are paired where they have a `source`, else a `text` alone."""
    columns = dataset.column_names
    if task not in ("transfer", "unpaired") or not {"source", "text"} & {*columns}:
        return task
    return "transfer" if "source" in columns else "unpaired"


def check_rows(dataset: Any, task: str, *, name: str = "train_dataset") -> None:
    """Refuses a data set that could not be learnt from, before any time is spent on it.

    Raises:
        ValueError: An unknown task, an empty data set, a missing column, an empty text or what is no class (its row
            is named).
    """
    if task not in COLUMNS:
        raise ValueError(f"task={task!r} must be one of {', '.join(COLUMNS)}")
    task = kind_of_rows(dataset, task)
    if len(dataset) == 0:
        raise ValueError(f"{name} has 0 rows and must have at least 1; check the files and filters it was made with")
    for column in COLUMNS[task]:
        if column not in dataset.column_names:
            raise ValueError(
                f"{name} lacks the column {column!r}: task {task!r} needs {', '.join(COLUMNS[task])}, found "
                f"{', '.join(dataset.column_names)}; rename or add it"
            )
    for column in (c for c in TEXT_COLUMNS.get(task, ()) if c in dataset.column_names):
        for row, text in enumerate(dataset[column]):
            if not _is_text(text):
                raise ValueError(f"{name}[{row}][{column!r}]={text!r} must be a non-empty text; drop or fill the row")
    _FURTHER_CHECKS.get(task, _no_more)(dataset, name)


def is_worse(text: str | None, target: str) -> bool:
    """Whether `text` is something that a target can be compared with: not empty, and not the target itself."""
    return bool(text) and text != target


def compares(dataset: Any) -> bool:
    """Whether a row of pairs has a worse target that is none of its own."""
    if "rejected" not in dataset.column_names:
        return False
    return any(map(is_worse, dataset["rejected"], dataset["target"]))


def check_compared(dataset: Any, kind: str, *, weight: float) -> None:
    """Refuses a preference that has nothing to compare.

    Args:
        dataset: Training rows.
        kind: Of them; see `kind_of_rows`.
        weight: w_pref.

    Raises:
        ValueError: A weight where rows are not pairs, or no row has a worse target.
    """
    if weight == 0:
        return
    if kind != "transfer" or "rejected" not in dataset.column_names:
        raise ValueError(
            f"w_pref={weight:g} must be 0 where rows are not pairs with a column 'rejected', a worse target to compare "
            "with; add it, or set w_pref=0"
        )
    if not compares(dataset):
        raise ValueError(
            f"w_pref={weight:g} must be 0 where no row's 'rejected' is a text other than its target; correct the column"
        )


def _check_rejected(dataset: Any, name: str) -> None:
    """Refuses the first worse target that is no text; an empty one, or None, is none."""
    for row, text in enumerate(dataset["rejected"] if "rejected" in dataset.column_names else ()):
        if not (text is None or isinstance(text, str)):
            raise ValueError(f"{name}[{row}]['rejected']={text!r} must be a text, or None for none; correct it")


def _no_more(dataset: Any, name: str) -> None:
    """Nothing that is not checked yet."""


def _check_classes(dataset: Any, name: str) -> None:
    """Refuses the first label that is no class."""
    for row, label in enumerate(dataset["label"]):
        if not _is_class(label):
            raise ValueError(f"{name}[{row}]['label']={label!r} must be the number of a class, from 0; number them")


def _check_words(dataset: Any, name: str) -> None:
    """Refuses the first row that has not one class for each of its words."""
    for row, (text, labels) in enumerate(zip(dataset["text"], dataset["label"], strict=True)):
        words = words_of(text) if isinstance(text, (str, list)) else []
        if not words or not all(map(_is_text, words)):
            raise ValueError(
                f"{name}[{row}]['text']={text!r} must be a text or a list of words, none empty; drop or fill the row"
            )
        if not isinstance(labels, list) or not all(map(_is_class, labels)):
            raise ValueError(f"{name}[{row}]['label']={labels!r} must be a list of class numbers, from 0; number them")
        if len(labels) != len(words):
            raise ValueError(
                f"{name}[{row}]['label'] has {len(labels)} classes and must have {len(words)}, one a word; label each "
                f"word ({IGNORED} for one that does not count)"
            )


def _check_prompts(dataset: Any, name: str) -> None:
    """Refuses the first prompt that is no text; an empty one is none."""
    for row, prompt in enumerate(dataset["prompt"] if "prompt" in dataset.column_names else ()):
        if not (prompt is None or isinstance(prompt, str)):
            raise ValueError(f"{name}[{row}]['prompt']={prompt!r} must be a text, or None for no prompt; correct it")


def _is_text(text: Any) -> bool:
    """Whether it is a text with something in it."""
    return isinstance(text, str) and bool(text.strip())


def _is_class(label: Any) -> bool:
    """Whether it is the number of a class, or stands for none."""
    return isinstance(label, int) and (label >= 0 or label == IGNORED)


_FURTHER_CHECKS: dict[str, Callable[[Any, str], None]] = {
    "classification": _check_classes,
    "token_classification": _check_words,
    "generation": _check_prompts,
    "transfer": _check_rejected,
}
