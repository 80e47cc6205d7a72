"""What a run of many shards is, and which of them are done: kept in the output folder, in files that are hidden there.

A reader of the folder (datasets, pandas, pyarrow, Spark) passes hidden files over, so that what is done can be read
while the rest is still being made.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from ..disk import digest, settle, write_whole, written_whole
from .survey import Survey

MANIFEST = ".manifest.json"
FORMAT_VERSION = 1
_NOTES = ".done-*.jsonl"  # one a process: a line a shard, until the manifest has them
_UNFINISHED = ".part-*.part"
_LEAST_DIGITS = 5
Entry = dict[str, Any]  # rows, size and sha256 of a file


@dataclass(frozen=True)
class Ledger:
    """A run.

    Attributes:
        folder: Where it writes.
        input: What tells its input from others.
        options: What its rows depend on beside the input.
        survey: What is known of the input.
        parts: How many shards there are; None for a stream that has not ended yet.
        digits: Of the number in a file's name.
        done: The shards whose files are there, by the files' names.
    """

    folder: Path
    input: Mapping[str, Any]
    options: Mapping[str, Any]
    survey: Survey
    parts: int | None
    digits: int
    done: Mapping[str, Entry]

    @classmethod
    def begun(cls, folder: Path, given: Mapping[str, Any], options: Mapping[str, Any], survey: Survey) -> "Ledger":
        """A run of which nothing is done."""
        parts = None if survey.rows is None else -(-survey.rows // options["shard_rows"])
        digits = max(_LEAST_DIGITS, len(str((parts or 1) - 1)))  # so that names sort as numbers do
        return cls(folder, given, options, survey, parts, digits, {})

    @classmethod
    def read(cls, folder: Path) -> "Ledger | None":
        """The run in `folder`; None where there is none.

        Raises:
            ValueError: A manifest that cannot be read, or files of shards without any.
        """
        path = folder / MANIFEST
        if not path.exists():
            if strangers := sorted(folder.glob("part-*")):
                raise ValueError(
                    f"output={str(folder)!r} holds {strangers[0].name} and no {MANIFEST}, so it is no output of this "
                    "command; name another folder"
                )
            return None
        try:
            found = json.loads(path.read_text("utf-8"))
            version = int(found["format_version"])
            if version > FORMAT_VERSION:
                raise ValueError(f"format_version={version} must be <= {FORMAT_VERSION}, update style_adapter")
            survey, done = Survey.from_json(found["survey"]), {**found["done"], **_noted(folder)}
            ledger = cls(folder, found["input"], found["options"], survey, found["parts"], found["digits"], done)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read ({error}); name another folder, or delete this one") from error
        return replace(ledger, done={name: entry for name, entry in done.items() if _is_there(folder / name, entry)})

    def check_same(self, given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Refuses to go on with another run.

        Raises:
            ValueError: Another input, or an option that is different; all of them are named.
        """
        found, asked = {**self.input, **self.options}, _settled({**given, **options})
        names = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
        if names:
            differences = ", ".join(f"{name}={asked.get(name)!r} (there {found.get(name)!r})" for name in names)
            raise ValueError(
                f"output={str(self.folder)!r} holds another run and must go on with the same input and options: "
                f"{differences}; name another folder, or delete this one"
            )

    def save(self) -> None:
        """Into the manifest, with all that processes have noted; it is whole at any instant."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = {
            "format_version": FORMAT_VERSION,
            "input": self.input,
            "options": self.options,
            "parts": self.parts,
            "digits": self.digits,
            "survey": self.survey.to_json(),
            "done": dict(sorted(self.done.items())),
        }
        write_whole(self.folder / MANIFEST, json.dumps(text, indent=1, ensure_ascii=False) + "\n")
        for notes in self.folder.glob(_NOTES):
            notes.unlink()

    def of_rows(self, rows: int) -> "Ledger":
        """The same run, once the rows of its stream are counted."""
        return replace(self, survey=replace(self.survey, rows=rows), parts=-(-rows // self.options["shard_rows"]))

    def name_of(self, number: int) -> str:
        """The file of a shard."""
        return f"part-{number:0{self.digits}d}.{self.options['format']}"

    def numbers(self, process: int = 0, processes: int = 1) -> Iterator[int]:
        """The shards of a process that are not done: every `processes`-th; of a stream without an end."""
        own = count(process, processes) if self.parts is None else range(process, self.parts, processes)
        return (number for number in own if self.name_of(number) not in self.done)

    def rows_of(self, number: int) -> range:
        """The numbers of a shard's rows; of a stream as many as there may be."""
        size, rows = self.options["shard_rows"], self.survey.rows
        start = number * size
        return range(start, start + size if rows is None else min(start + size, rows))

    def clear_away(self) -> None:
        """Removes what killed processes left unfinished; none may be writing."""
        for path in self.folder.glob(_UNFINISHED):
            path.unlink(missing_ok=True)


def note(folder: Path, process: int, name: str, entry: Entry) -> None:
    """Writes down that the file of a shard is there."""
    path = folder / _NOTES.replace("*", str(process))
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"part": name, **entry}) + "\n")
    settle(path)


def unfinished(path: Path) -> Path:
    """Where a shard's file is until it is whole; another name in each process, should two runs meet."""
    return path.with_name(f".{path.name}-{os.getpid()}.part")


def place(path: Path, write: Callable[[Path], None], rows: int) -> Entry:
    """Writes a shard's file, which is whole or not there; what there is to say of it."""
    with written_whole(path, unfinished(path)) as part:
        write(part)
        return {"rows": rows, "size": part.stat().st_size, "sha256": digest(part)}


def _noted(folder: Path) -> dict[str, Entry]:
    """What processes have noted; a last line that a kill has cut counts for nothing."""
    found: dict[str, Entry] = {}
    for path in folder.glob(_NOTES):
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                found[entry.pop("part")] = entry
            except (ValueError, KeyError, AttributeError):
                continue
    return found


def _is_there(path: Path, entry: Entry) -> bool:
    """Whether the file is still what was noted, by its size."""
    return path.is_file() and path.stat().st_size == entry.get("size")


def _settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they come back from JSON."""
    return json.loads(json.dumps(values))
