"""What a data set must have: its columns by task, checked once, before any time is spent."""

from typing import Any

from ..functional import IGNORED

COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": ("source", "target", "style"),
    "unpaired": ("text", "style"),
    "classification": ("text", "label"),
}
TEXT_COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": ("source", "target"),
    "unpaired": ("text",),
    "classification": ("text", "text_pair"),
}


def kind_of_rows(dataset: Any, task: str) -> str:
    """What the rows of a task are: those of transfer are "unpaired" where they have a `text` and no `source`."""
    columns = dataset.column_names
    return "unpaired" if task == "transfer" and "text" in columns and "source" not in columns else task


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
    for column in (c for c in TEXT_COLUMNS[task] if c in dataset.column_names):
        for row, text in enumerate(dataset[column]):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name}[{row}][{column!r}]={text!r} must be a non-empty text; drop or fill the row")
    for row, label in enumerate(dataset["label"] if task == "classification" else ()):
        if not isinstance(label, int) or (label < 0 and label != IGNORED):
            raise ValueError(f"{name}[{row}]['label']={label!r} must be the number of a class, from 0; number them")
