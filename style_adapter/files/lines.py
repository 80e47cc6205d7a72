"""Files of text: .txt, .csv and .jsonl, plain or gzipped, read from any shard on."""

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from .job import Job
from .rows import Rows
from .survey import RowCheck, Survey

_BLOCK = 1000  # rows that types are looked for in at once
_LONGEST = 1 << 26  # bytes of a CSV cell: a quote that nobody closes must not read the whole file
_MARK = b"\xef\xbb\xbf"  # what some write before UTF-8


class Lines(Iterator[str]):
    """The lines of a binary file with their ends, and where the next one begins."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        """From where the file is now."""
        self.file, self.offset, self.number = file, file.tell(), 0

    def __next__(self) -> str:
        """The next line."""
        line = self.file.readline()
        if not line:
            raise StopIteration
        first = self.offset == 0
        self.offset += len(line)
        self.number += 1
        return (line.removeprefix(_MARK) if first else line).decode()


def _plain(lines: Lines, column: str, header: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each line a text."""
    for line in lines:
        yield {column: line.removesuffix("\n").removesuffix("\r")}


def _json(lines: Lines, column: str, header: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each line an object; lines without anything are none."""
    for line in lines:
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"{line.strip()[:40]!r} must be an object such as {{{json.dumps(column)}: ...}}")
        yield row


def _header(lines: Lines) -> list[str]:
    """The names in the first record."""
    names = next(csv.reader(lines, strict=True), [])
    if len({*names}) < len(names):
        raise ValueError(f"the header {', '.join(names)} must name each column once; rename one")
    return names


def _csv(lines: Lines, column: str, header: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each record under the names of the header; every cell is a text."""
    for cells in csv.reader(lines, strict=True):
        if cells and len(cells) != len(header):
            raise ValueError(f"{len(cells)} cells must be {len(header)}, as in the header; quote cells with commas")
        if cells:
            yield dict(zip(header, cells, strict=True))


READERS: dict[str, Callable[[Lines, str, Sequence[str]], Iterator[dict[str, Any]]]] = {
    "txt": _plain,
    "jsonl": _json,
    "csv": _csv,
}


class TextFile:
    """One file of text."""

    def __init__(self, job: Job, kind: str) -> None:
        """Opens the file; nothing is read yet."""
        self.job, self.format, self.has_columns = job, kind, kind != "txt"
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
        opened: Any = gzip.open if job.input.lower().endswith(".gz") else open
        self.file = cast(io.BufferedIOBase, opened(job.input, "rb"))

    def identity(self) -> dict[str, Any]:
        """Path, size and time of the last change."""
        return identity_of(self.job.input)

    def survey(self, check: RowCheck) -> Survey:
        """Every row is read and checked; of what is to become Parquet the types are found."""
        typed = _Types(self.job) if self.job.format == "parquet" else None
        starts, count = [], 0
        self.file.seek(0)
        lines = Lines(self.file)
        with self._explained(lines):
            header = _header(lines) if self.format == "csv" else []
            names = dict.fromkeys(header)
            records = READERS[self.format](lines, self.job.column, header)
            while True:
                start = lines.offset
                row = next(records, None)
                if row is None:
                    break
                if count % self.job.shard_rows == 0:
                    starts.append(start)
                check(count, row.get(self.job.column), row.get(self.job.style_column or ""))
                names.update(dict.fromkeys(row))
                if typed is not None:
                    typed.add(row)
                count += 1
        schema = None if typed is None or not count else typed.schema()
        return Survey(tuple(names), count, tuple(starts), schema)

    def rows(self, span: range, survey: Survey) -> Rows:
        """Those rows; a gzipped file is read on to them."""
        shard, within = divmod(span.start, self.job.shard_rows)
        if shard >= len(survey.starts):
            return []
        self.file.seek(survey.starts[shard])
        lines = Lines(self.file)
        with self._explained(lines):
            records = READERS[self.format](lines, self.job.column, survey.columns)
            return [*islice(records, within, within + len(span))]

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    @contextmanager
    def _explained(self, lines: Lines) -> Iterator[None]:
        """An error says where it is."""
        try:
            yield
        except (ValueError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
            if str(error).startswith(self.job.input):  # of a check, which has said where
                raise
            raise ValueError(
                f"{self.job.input}, line {lines.number}: {error}; must be {self.format} in UTF-8, correct or convert it"
            ) from error


class _Types:
    """The types that rows of JSON have together, found in blocks."""

    def __init__(self, job: Job) -> None:
        self.job, self.block, self.found = job, list[dict[str, Any]](), pa.schema([])

    def add(self, row: dict[str, Any]) -> None:
        """Takes one row into account."""
        self.block.append(row)
        if len(self.block) == _BLOCK:
            self.close()

    def close(self) -> None:
        """Takes the rows of the block into account.

        Raises:
            ValueError: A column of several types.
        """
        try:
            fields = pa.array(self.block or [{}]).type
            self.found = pa.unify_schemas([self.found, pa.schema([*fields])], promote_options="permissive")
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise self._refused(error) from error
        self.block = []

    def schema(self) -> pa.Schema:
        """All types, with that of the rewrites.

        Raises:
            ValueError: Parquet has none like them, such as an object without keys.
        """
        self.close()
        whole = self.found.append(pa.field(self.job.output_column, pa.string()))
        try:
            pq.write_table(whole.empty_table(), io.BytesIO())
        except pa.ArrowException as error:
            raise self._refused(error) from error
        return whole

    def _refused(self, error: Exception) -> ValueError:
        """What is said of rows that Parquet cannot hold."""
        return ValueError(
            f"{self.job.input}: format='parquet' must have one type a column ({error}); choose format='jsonl'"
        )


def identity_of(path: str) -> dict[str, Any]:
    """Path, size in bytes and time of the last change in ns."""
    found = os.stat(path)
    return {"path": os.path.abspath(path), "size": found.st_size, "modified": found.st_mtime_ns}
