"""What a data set must have: its columns by task, checked once, before any time is spent."""

from typing import Any

from ..functional import IGNORED

COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": ("source", "target", "style"),
    "classification": ("text", "label"),
}
TEXT_COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": ("source", "target"),
    "classification": ("text", "text_pair"),
}


def check_rows(dataset: Any, task: str, *, name: str = "train_dataset") -> None:
    """Refuses a data set that could not be learnt from, before any time is spent on it.

    Raises:
        ValueError: An unknown task, an empty data set, a missing column, an empty text or what is no class (its row
            is named).
    """
    if task not in COLUMNS:
        raise ValueError(f"task={task!r} must be one of {', '.join(COLUMNS)}")
    if len(dataset) == 0:
        raise ValueError(f"{name} has 0 rows and must have at least 1; check the files and filters it was made with")
    for column in COLUMNS[task]:
        if column not in dataset.column_names:
            raise ValueError(
                f"{name} lacks the column {column!r}: task {task!r} needs {', '.join(COLUMNS[task])}, found "
                f"{', '.join(dataset.column_names)}; rename or add it"
            )
    for column in (c for c in TEXT_COLUMNS[task] if c in dataset.column_names):
        for row, text in enumerate(dataset[column]):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name}[{row}][{column!r}]={text!r} must be a non-empty text; drop or fill the row")
    for row, label in enumerate(dataset["label"] if task == "classification" else ()):
        if not isinstance(label, int) or (label < 0 and label != IGNORED):
            raise ValueError(f"{name}[{row}]['label']={label!r} must be the number of a class, from 0; number them")
