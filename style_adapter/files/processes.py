"""One process, or many that a launcher has started: shard i belongs to process i % processes."""

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from ..bars import with_bar
from .beginning import Transferred, begin, end, ledger_of, result_of
from .job import Job
from .ledger import Ledger, note
from .shards import ShardWriter

_PATIENCE = timedelta(days=20)  # of processes that wait for one another: one may have shards long after another


def make_in_processes(job: Job, workers: int | None) -> Transferred:
    """All shards, by all processes; every one of them must call it.

    Raises:
        ValueError: As `transfer_files`.
    """
    if workers is not None:
        raise ValueError(f"workers={workers} must be left out for engine='processes': the launcher starts them")
    state = _processes()
    if state.is_main_process:
        begin(job)
    state.wait_for_everyone()
    ledger = ledger_of(job)
    share = (state.process_index, state.num_processes)
    total, done = _progress(ledger, *share)
    spans = map(ledger.rows_of, ledger.numbers(*share))
    with closing(ShardWriter(job, ledger, state.device)) as writer:
        for number in _numbers(spans, ledger, Path(job.input).name, total, done):
            entry = writer.make(number)
            if entry is None:  # the end of a stream
                break
            note(job.output, state.process_index, ledger.name_of(number), entry)
    state.wait_for_everyone()
    if state.is_main_process:
        end(job)
    state.wait_for_everyone()
    return result_of(job)


def _numbers(spans: Iterator[range], ledger: Ledger, name: str, total: int | None, done: int) -> Iterator[int]:
    """The shards of the spans, under a bar that counts their rows."""
    for span in with_bar(spans, name, total, done=done):
        yield span.start // ledger.options["shard_rows"]


def _progress(ledger: Ledger, process: int, processes: int) -> tuple[int | None, int]:
    """(how many rows a process has, how many of them are done)."""
    if ledger.parts is None:
        return None, 0
    total = sum(len(ledger.rows_of(number)) for number in range(process, ledger.parts, processes))
    return total, total - sum(len(ledger.rows_of(number)) for number in ledger.numbers(process, processes))


def _processes() -> PartialState:
    """What the launcher has started.

    Raises:
        ValueError: Accelerate sees other processes than were launched: each would do the work of all.
    """
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise ValueError(
            f"{launched} processes were launched and Accelerate sees {state.num_processes}; launch with --cpu, or as "
            "many as there are devices"
        )
    return state
