"""The files of the output, one a shard, by format."""

import csv
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from .rows import Rows, as_cell, as_dicts, as_json, as_table
from .survey import Survey


def _parquet(rows: Rows, path: Path, column: str, survey: Survey) -> None:
    """Types as they were read, or as all rows of JSON have them."""
    pq.write_table(as_table(rows, survey.schema), path)


def _csv(rows: Rows, path: Path, column: str, survey: Survey) -> None:
    """A header and a record a row; what is neither text nor null is JSON in a cell."""
    names = [*survey.columns, column]
    with path.open("w", encoding="utf-8", newline="") as file:
        plain, quoted = (csv.writer(file, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        plain.writerow(names)
        for row in as_dicts(rows):
            cells = [as_cell(row.get(name)) for name in names]
            # Before Python 3.13 a carriage return alone asks for no quotes, and readers end the row at it.
            (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)


def _jsonl(rows: Rows, path: Path, column: str, survey: Survey) -> None:
    """An object a line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"{as_json(row)}\n" for row in as_dicts(rows))


def _txt(rows: Rows, path: Path, column: str, survey: Survey) -> None:
    """The rewrites alone, one line each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(" ".join(row[column].split("\n")) + "\n" for row in as_dicts(rows))


WRITERS: dict[str, Callable[[Rows, Path, str, Survey], None]] = {
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _jsonl,
    "txt": _txt,
}
