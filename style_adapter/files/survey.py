"""What is known of an input before any of it is rewritten."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from ..recipe import parse_value
from ..style import Style, StyleBank
from .job import Job
from .rows import Rows

_MAPPING = re.compile(r"\s*\{")
RowCheck = Callable[[int, Any, Any], None]  # number, text, style


@dataclass(frozen=True)
class Survey:
    """What one look through an input has found.

    Attributes:
        columns: Their names.
        rows: How many there are; None for a stream, of which nobody knows before its end.
        starts: Of a file of text, the byte (before compression) at which each shard begins.
        schema: The types of what is to become Parquet and has none itself.
    """

    columns: tuple[str, ...]
    rows: int | None
    starts: tuple[int, ...] = ()
    schema: pa.Schema | None = None

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        schema = None if self.schema is None else base64.b64encode(self.schema.serialize().to_pybytes()).decode()
        return {"columns": [*self.columns], "rows": self.rows, "starts": [*self.starts], "schema": schema}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Survey":
        """What `to_json` wrote."""
        schema = found["schema"] and pa.ipc.read_schema(pa.py_buffer(base64.b64decode(found["schema"])))
        return cls(tuple(found["columns"]), found["rows"], tuple(found["starts"]), schema or None)


@runtime_checkable
class Source(Protocol):
    """An input.

    Attributes:
        format: What it is written as if nothing else is asked for.
        has_columns: Whether its rows are more than one text.
    """

    format: str
    has_columns: bool

    def identity(self) -> dict[str, Any]:
        """What tells it from another input, and from itself after a change."""

    def survey(self, check: RowCheck) -> Survey:
        """One look through it, as far as it can be had at once.

        Raises:
            ValueError: What cannot be read, or is no text where one must be; the row is named.
        """

    def rows(self, span: range, survey: Survey) -> Rows:
        """The rows of these numbers, as far as there are any; quick where spans are asked for in order."""

    def close(self) -> None:
        """Lets go of its files."""


def check_columns(job: Job, columns: Sequence[str]) -> None:
    """Refuses a column that is missing, and an output column that would hide one.

    Raises:
        ValueError: Either.
    """
    known = ", ".join(columns)
    for name in ("column", "style_column"):
        asked = getattr(job, name)
        if asked is not None and asked not in columns:
            raise ValueError(f"{name}={asked!r} must be a column of {job.input}: {known}; name one of these")
    if job.output_column in columns:
        raise ValueError(
            f"output_column={job.output_column!r} must be a new name, and {job.input} has the columns {known}; "
            "give another"
        )


class Cells:
    """What the cells of a text and of its style may hold."""

    def __init__(self, job: Job, bank: StyleBank) -> None:
        """Words that name a style are read once each."""
        self.job, self.bank = job, bank
        self.default = bank.usual
        self._read = lru_cache(maxsize=4096)(self._in_words)

    def check(self, number: int, text: Any, style: Any) -> None:
        """Refuses what cannot be rewritten.

        Raises:
            ValueError: With the row's number, from 0.
        """
        if text is not None and not isinstance(text, str):
            raise ValueError(
                f"{self.job.input}, row {number}: column {self.job.column!r} holds {text!r}, which must be a text or "
                "null; convert it"
            )
        if text is not None and not text.isascii():
            self._check_encoding(number, text)
        if self.job.style_column is not None:
            self.style(number, style)

    def _check_encoding(self, number: int, text: str) -> None:
        """Refuses half a surrogate pair, which no tokenizer takes."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{self.job.input}, row {number}: column {self.job.column!r} holds {text[error.start]!r}, which is no "
                "Unicode text; correct it"
            ) from error

    def style(self, number: int, cell: Any) -> Style:
        """The style that a cell names: a name, a mixture in words, a dict or one in words; nothing is the default.

        Raises:
            ValueError: It names none.
        """
        try:
            if cell is None or isinstance(cell, str):
                return self._read(cell or self.default)
            if isinstance(cell, (dict, list)):
                return self.bank.parse(cell)
            raise ValueError(f"{cell!r} must be a name, a mixture in words or a dict")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.job.input}, row {number}, column {self.job.style_column!r}: {error}") from error

    def _in_words(self, text: str) -> Style:
        """A name, a mixture, or a dict in YAML or JSON."""
        if text not in self.bank and _MAPPING.match(text):
            return self.bank.parse(parse_value(text))
        return self.bank.parse(text)
