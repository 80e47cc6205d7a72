"""From the name of an input to its reader."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .job import Job
from .lines import TextFile
from .survey import Source
from .tables import ParquetFile, SavedDataset, Stream

# By what the name ends in; `.gz` behind the last three.
SUFFIXES: dict[str, Callable[[Job], Source]] = {
    ".parquet": ParquetFile,
    ".csv": partial(TextFile, kind="csv"),
    ".jsonl": partial(TextFile, kind="jsonl"),
    ".txt": partial(TextFile, kind="txt"),
}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves in a folder


def suffix_of(name: str) -> str:
    """The ending that says what a file is, without that of gzip.

    >>> suffix_of("a/B.CSV.gz"), suffix_of("b.txt"), suffix_of("me/corpus")
    ('.csv', '.txt', '')
    """
    return Path(name.lower().removesuffix(".gz")).suffix


def open_source(job: Job) -> Source:
    """The reader of the job's input.

    Raises:
        ValueError: A file of another kind; the known ones are listed.
        FileNotFoundError: Something that looks like a file and is none.
    """
    name, suffix = job.input, suffix_of(job.input)
    known = f"{', '.join(SUFFIXES)} (but for Parquet also with .gz behind it)"
    if os.path.isdir(name):
        return SavedDataset(job) if any((Path(name) / mark).exists() for mark in _SAVED) else Stream(job)
    if suffix in SUFFIXES and not name.lower().endswith(".parquet.gz"):
        if not os.path.exists(name):
            raise FileNotFoundError(f"input={name!r} does not exist; give the path of a file that is there")
        return SUFFIXES[suffix](job)
    if os.path.exists(name):
        raise ValueError(f"input={name!r} must end in one of {known}, or be a folder; rename or convert it")
    if not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(
            f"input={name!r} does not exist; give a file that ends in one of {known}, a folder, or a data set of the "
            "hub"
        )
    return Stream(job)
