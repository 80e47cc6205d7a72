"""The shards of a run on Ray Data: the rows it maps over are numbers of shards, its actors make their files."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

from ..bars import with_bar
from .beginning import Transferred, begin, end, ledger_of
from .job import Job
from .ledger import Ledger, note
from .shards import ShardWriter

_EXPECTED = (ValueError, TypeError, OSError, ImportError)  # what has a message for people


def make_on_ray(job: Job, workers: int | None) -> Transferred:
    """All shards, by actors that load the adapter once each.

    Texts do not go through Ray: an actor reads, rewrites and writes a shard itself, and says so.

    Raises:
        ValueError: As `transfer_files`.
        ImportError: Ray is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("engine='ray' must run in one process, which finds its workers itself; leave the launcher out")
    ray = _imported()
    begin(job, counted=True)
    ledger = ledger_of(job)
    numbers = [*ledger.numbers()]
    if numbers:
        _make(ray, job, ledger, numbers, workers)
    return end(job)


def _make(ray: Any, job: Job, ledger: Ledger, numbers: list[int], workers: int | None) -> None:
    """The files of these shards."""
    started = not ray.is_initialized()
    if started:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    try:
        resources = _resources(ray.cluster_resources(), workers)
        made = (
            ray.data.from_items([{"shard": number} for number in numbers], override_num_blocks=len(numbers))
            .map_batches(
                _Actor,
                fn_constructor_kwargs={"job": job, "ledger": ledger},
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(resources.pop("workers"), len(numbers))),
                **resources,
            )
            .iter_rows()
        )
        rows = ledger.survey.rows or 0
        left = sum(len(ledger.rows_of(number)) for number in numbers)
        spans = (_noted(job, ledger, found) for found in made)
        for _ in with_bar(spans, Path(job.input).name, rows, done=rows - left):
            pass
    finally:
        if started:
            ray.shutdown()


def _noted(job: Job, ledger: Ledger, found: dict[str, Any]) -> range:
    """The rows of a shard that an actor has made.

    Raises:
        ValueError: The actor could not.
    """
    if found["error"]:
        raise ValueError(found["error"])
    number = int(found["shard"])
    note(job.output, 0, ledger.name_of(number), json.loads(found["entry"]))
    return ledger.rows_of(number)


def _resources(found: dict[str, float], workers: int | None) -> dict[str, Any]:
    """How many workers, and what each takes: a GPU, or without any its share of the CPUs.

    >>> _resources({"CPU": 16.0, "GPU": 4.0}, None)
    {'workers': 4, 'num_cpus': 1, 'num_gpus': 1}
    >>> _resources({"CPU": 16.0}, 3)
    {'workers': 3, 'num_cpus': 5, 'num_gpus': 0}

    Raises:
        ValueError: More workers than the cluster has place for: they would be waited for without an end.
    """
    kind = "GPU" if found.get("GPU", 0) >= 1 else "CPU"
    most = int(found.get(kind, 0))
    count = workers if workers is not None else most if kind == "GPU" else 1
    if not 1 <= count <= most:
        raise ValueError(f"workers={count} must be in 1..{most}, one a {kind} of the cluster; set it so")
    each = 1 if kind == "GPU" else most // count
    return {"workers": count, "num_cpus": each, "num_gpus": int(kind == "GPU")}


class _Actor:
    """One worker."""

    def __init__(self, job: Job, ledger: Ledger) -> None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.writer = ShardWriter(job, ledger, device or torch.device("cpu"))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What became of one shard."""
        (number,) = batch["shard"]
        try:
            entry, error = self.writer.make(int(number)), ""
        except _EXPECTED as found:
            entry, error = None, str(found) or repr(found)
        return {"shard": [number], "entry": [json.dumps(entry)], "error": [error]}


def _imported() -> Any:
    """Ray with its data part, quiet.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"engine='ray' needs Ray ({error}): pip install 'style_adapter[ray]'") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray
