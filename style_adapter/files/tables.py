"""Inputs whose columns have types: a Parquet file, a data set of the hub or of a folder."""

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator
from itertools import accumulate
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from .job import Job
from .lines import identity_of
from .rows import Rows
from .survey import RowCheck, Survey, check_columns

BATCH = 1000  # rows read at once
_BUFFER = 1 << 20  # bytes


class Cursor:
    """Reads spans of rows in one pass where they come in order, and begins anew where that is nearer.

    Args:
        begin: Row -> the nearest row before it at which reading can begin.
        read: Such a row -> the tables from there on.
    """

    def __init__(self, begin: Callable[[int], int], read: Callable[[int], Iterator[pa.Table]]) -> None:
        """Nothing is read yet."""
        self.begin, self.read = begin, read
        self.at = -1  # the row at which `self.held` begins
        self.held: pa.Table | None = None
        self.tables: Iterator[pa.Table] = iter(())

    def rows(self, span: range) -> pa.Table | None:
        """The rows of `span`, as far as there are any; None where there are none."""
        nearest = self.begin(span.start)
        if self.at < 0 or span.start < self.at or nearest > self.at + len(self.held or ()):
            self.at, self.held, self.tables = nearest, None, self.read(nearest)
        found: list[pa.Table] = []
        while self.at < span.stop:
            if self.held is None or not len(self.held):
                self.held = next(self.tables, None)
            if self.held is None:
                break
            skipped = min(max(0, span.start - self.at), len(self.held))
            taken = min(span.stop - self.at, len(self.held)) - skipped
            if taken:
                found.append(self.held.slice(skipped, taken))
            self.at, self.held = self.at + skipped + taken, self.held.slice(skipped + taken)
        return pa.concat_tables(found) if found else None

    def close(self) -> None:
        """Reads no more."""
        if isinstance(self.tables, Generator):
            self.tables.close()


class ParquetFile:
    """One Parquet file: a shard is looked for in its row group."""

    format, has_columns = "parquet", True

    def __init__(self, job: Job) -> None:
        """Opens the file and reads what stands at its end."""
        self.job = job
        try:
            self.file = pq.ParquetFile(job.input, buffer_size=_BUFFER, pre_buffer=False)
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"{job.input} must be a Parquet file and is not ({error}); rename or convert it"
            ) from error
        metadata = self.file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.starts = [0, *accumulate(sizes)]
        self.cursor = Cursor(lambda row: self.starts[self._group(row)], lambda row: self._tables(self._group(row)))

    def _group(self, row: int) -> int:
        """The last row group that begins at `row` or before."""
        return max(i for i, start in enumerate(self.starts) if start <= row)

    def _tables(self, group: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows from a group on; each group by itself, so that a table is the same wherever reading began."""
        for i in range(group, len(self.starts) - 1):
            for batch in self.file.iter_batches(BATCH, row_groups=[i], columns=columns):
                yield pa.Table.from_batches([batch])

    def identity(self) -> dict[str, Any]:
        """Path, size and time of the last change."""
        return identity_of(self.job.input)

    def survey(self, check: RowCheck) -> Survey:
        """What the file says of itself; styles are read one by one."""
        schema = self.file.schema_arrow
        check_columns(self.job, schema.names)
        check_texts(self.job, schema)
        if self.job.style_column is not None:
            cells = (cell for t in self._tables(0, [self.job.style_column]) for cell in t[0].to_pylist())
            for number, cell in enumerate(cells):
                check(number, None, cell)
        return Survey(tuple(schema.names), self.starts[-1])

    def rows(self, span: range, survey: Survey) -> Rows:
        """Those rows."""
        found = self.cursor.rows(span)
        return [] if found is None else found

    def close(self) -> None:
        """Closes the file."""
        self.cursor.close()
        self.file.close()


class Stream:
    """A data set that is streamed from the hub or from the files of a folder."""

    format, has_columns = "parquet", True

    def __init__(self, job: Job) -> None:
        """Finds the files of the split; nothing is streamed yet."""
        self.job = job
        self.builder = datasets.load_dataset_builder(job.input, job.subset)
        try:
            self.rows_of_it = self.builder.as_streaming_dataset(split=job.split).with_format("arrow")
        except ValueError as error:
            raise ValueError(f"split={job.split!r} must be a split of {job.input}: {error}") from error
        self.cursor = Cursor(lambda row: 0, lambda row: self._tables())

    def _tables(self) -> Iterator[pa.Table]:
        """The whole stream, in the types of its first rows.

        Raises:
            ValueError: Rows that do not fit them.
        """
        schema: pa.Schema | None = None
        for table in self.rows_of_it.iter(batch_size=BATCH):
            schema = table.schema if schema is None else schema
            try:
                yield table if table.schema == schema else table.select(schema.names).cast(schema)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError) as error:
                raise ValueError(
                    f"{self.job.input} must have the same columns in all rows ({error}); convert it to Parquet"
                ) from error

    def identity(self) -> dict[str, Any]:
        """Name, split, and a fingerprint of the files: their addresses, with commit or time of the last change."""
        files = self.builder.config.data_files or {}
        listed = {str(split): [[*map(str, found)], found.origin_metadata] for split, found in files.items()}
        text = json.dumps([self.builder.hash, listed], default=str)
        return {
            "path": self.job.input,
            "subset": self.job.subset,
            "split": self.job.split,
            "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
        }

    def survey(self, check: RowCheck) -> Survey:
        """The first rows alone: what is further on is checked in its turn."""
        first = self.cursor.rows(range(1))
        if first is None:
            return Survey((), 0)
        check_columns(self.job, first.column_names)
        check_texts(self.job, first.schema)
        return Survey(tuple(first.column_names), None)

    def count(self) -> int:
        """How many rows there are; all are streamed."""
        return sum(map(len, self._tables()))

    def rows(self, span: range, survey: Survey) -> Rows:
        """Those rows; all before them are streamed too."""
        found = self.cursor.rows(span)
        return [] if found is None else found

    def close(self) -> None:
        """Ends the stream."""
        self.cursor.close()


class SavedDataset:
    """What `Dataset.save_to_disk` wrote: any row is at hand."""

    format, has_columns = "parquet", True

    def __init__(self, job: Job) -> None:
        """Maps the files into memory."""
        self.job = job
        found = datasets.load_from_disk(job.input)
        if isinstance(found, datasets.DatasetDict):
            if job.split not in found:
                raise ValueError(f"split={job.split!r} must be a split of {job.input}: {', '.join(found)}")
            found = found[job.split]
        self.dataset = found.with_format("arrow")

    def identity(self) -> dict[str, Any]:
        """Path, split, and the data set's own fingerprint."""
        path = os.path.abspath(self.job.input)
        return {"path": path, "split": self.job.split, "fingerprint": self.dataset._fingerprint}

    def survey(self, check: RowCheck) -> Survey:
        """What it says of itself; styles are read one by one."""
        check_columns(self.job, self.dataset.column_names)
        check_texts(self.job, self.dataset.features.arrow_schema)
        if self.job.style_column is not None:
            for number, cell in enumerate(self.dataset.with_format(None)[self.job.style_column]):
                check(number, None, cell)
        return Survey(tuple(self.dataset.column_names), len(self.dataset))

    def rows(self, span: range, survey: Survey) -> Rows:
        """Those rows."""
        return self.dataset[span.start : min(span.stop, len(self.dataset))]

    def close(self) -> None:
        """Nothing is open."""


def check_texts(job: Job, schema: pa.Schema) -> None:
    """Refuses a column that holds no texts.

    Raises:
        ValueError: With its type.
    """
    found = schema.field(job.column).type
    kind = found.value_type if pa.types.is_dictionary(found) else found
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(fits(kind) for fits in kinds):
        raise ValueError(f"column={job.column!r} holds {found} and must hold texts; name another or convert it")
