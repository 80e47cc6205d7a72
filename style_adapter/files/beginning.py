"""How a run begins, or goes on, and how it ends: done by one process alone."""

import os
from contextlib import closing
from dataclasses import dataclass

from .adapters import identity_of_adapter, read_bank, style_of
from .job import Job
from .ledger import Ledger
from .sources import open_source
from .survey import Cells, Source, check_columns
from .tables import Stream


@dataclass(frozen=True)
class Transferred:
    """What stands in the output folder.

    Attributes:
        folder: It.
        rows: How many rows.
        files: The names of their files, in the order of the rows.
    """

    folder: str
    rows: int
    files: list[str]

    def __str__(self) -> str:
        """One line."""
        return f"{self.rows:,} rows in {len(self.files):,} files: {self.folder}"


def begin(job: Job, *, counted: bool = False) -> None:
    """Leaves a manifest in the output folder: a new one, or the one of the same run with what is done.

    Args:
        job: The run.
        counted: Whether the rows must be known now, also those of a stream.

    Raises:
        ValueError: What `transfer_files` says.
    """
    with closing(open_source(job)) as source:
        _begin(job, source, counted=counted)


def _begin(job: Job, source: Source, *, counted: bool) -> None:
    """The same with the input at hand."""
    if os.path.isdir(job.input) and os.path.realpath(job.input) == os.path.realpath(job.output):
        raise ValueError(f"output={str(job.output)!r} must be another folder than the input; name another")
    if job.format == "txt" and source.has_columns:
        raise ValueError(
            "format='txt' holds the rewrites alone and must be parquet, csv or jsonl for an input with columns; choose "
            "one of these"
        )
    bank = read_bank(job)
    options = {**job.options(), "format": job.format or source.format}
    options |= identity_of_adapter(job, style_of(job, bank))
    given = source.identity()
    ledger = Ledger.read(job.output)
    if ledger is not None:
        ledger.check_same(given, options)
    else:
        survey = source.survey(Cells(job, bank).check)
        if survey.rows == 0:
            raise ValueError(f"input={job.input!r} has 0 rows and must have at least 1; check which file was given")
        check_columns(job, survey.columns)
        ledger = Ledger.begun(job.output, given, options, survey)
    if counted and ledger.parts is None and isinstance(source, Stream):
        ledger = ledger.of_rows(source.count())
    ledger.save()


def end(job: Job) -> Transferred:
    """Takes what all processes have done into the manifest; no process may be at work.

    Raises:
        RuntimeError: A shard's file is not there, though it was written.
    """
    ledger = ledger_of(job)
    if ledger.parts is None:
        ledger = ledger.of_rows(sum(entry["rows"] for entry in ledger.done.values()))
    missing = next(ledger.numbers(), None)
    if missing is not None:
        raise RuntimeError(f"{job.output / ledger.name_of(missing)} was written and is not there; run the same again")
    ledger.save()
    ledger.clear_away()
    return result_of(job)


def result_of(job: Job) -> Transferred:
    """What the finished run says of itself."""
    ledger = ledger_of(job)
    return Transferred(str(job.output), ledger.survey.rows or 0, sorted(ledger.done))


def ledger_of(job: Job) -> Ledger:
    """The run that has begun.

    Raises:
        RuntimeError: Its manifest has been deleted since.
    """
    ledger = Ledger.read(job.output)
    if ledger is None:
        raise RuntimeError(f"{job.output} has lost its manifest while the run was at work; run the same again")
    return ledger
