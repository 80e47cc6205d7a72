"""Rows between reading and writing: dicts where the file has text, an Arrow table where it has types."""

import datetime
import json
from typing import Any, TypeAlias

import pyarrow as pa

Rows: TypeAlias = list[dict[str, Any]] | pa.Table
_HUGGINGFACE = b"huggingface"  # where the library datasets keeps its types in a schema


def values_of(rows: Rows, column: str) -> list[Any]:
    """One column; None where a row lacks it."""
    return [row.get(column) for row in rows] if isinstance(rows, list) else rows[column].to_pylist()


def with_texts(rows: Rows, column: str, texts: list[str | None]) -> Rows:
    """The rows with one column more, the last one."""
    if isinstance(rows, list):
        return [{**row, column: text} for row, text in zip(rows, texts, strict=True)]
    wider = rows.append_column(column, pa.array(texts, pa.string()))
    return wider.replace_schema_metadata(_described(rows.schema.metadata, column))


def _described(metadata: dict[bytes, bytes] | None, column: str) -> dict[bytes, bytes] | None:
    """The schema's metadata with the new column: without it the library datasets would refuse the file."""
    if not metadata or _HUGGINGFACE not in metadata:
        return metadata
    found = json.loads(metadata[_HUGGINGFACE])
    if "features" not in (found.get("info") or {}):
        return metadata
    found["info"]["features"][column] = {"dtype": "string", "_type": "Value"}
    return {**metadata, _HUGGINGFACE: json.dumps({"info": found["info"]}).encode()}


def as_dicts(rows: Rows) -> list[dict[str, Any]]:
    """The rows as dicts."""
    return rows if isinstance(rows, list) else rows.to_pylist()


def as_table(rows: Rows, schema: pa.Schema | None) -> pa.Table:
    """The rows as one table of whole columns; `schema` is that of dicts."""
    if isinstance(rows, list):
        return pa.Table.from_pylist(rows, schema=schema)
    return rows.combine_chunks()  # pages must not depend on how the rows were read


def as_json(value: Any) -> str:
    """One line of JSON; in plain ASCII where UTF-8 could not hold it.

    Raises:
        ValueError: Bytes, which JSON has no form for.
    """
    text = json.dumps(value, ensure_ascii=False, default=_in_words)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may hold
        return json.dumps(value, default=_in_words)
    return text


def _in_words(value: Any) -> str:
    """What JSON has no form for, as a text."""
    if isinstance(value, bytes):
        raise ValueError("a column holds bytes, which only format='parquet' can keep; choose it")
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    return str(value)


def as_cell(value: Any) -> str:
    """A value as a cell of a CSV file: a text is itself, nothing is empty, the rest is JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return as_json(value) if isinstance(value, (bool, int, float, dict, list, tuple)) else _in_words(value)
