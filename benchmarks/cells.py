"""What benchmarks keep in `results`, for `report.py` to make the page of.

A short benchmark keeps one file, NAME.json; a long one a folder NAME of cells, each run once and kept by itself, so
that a long table can be taken up again. A file holds {"results", "machine"}, and how it was measured.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from style_adapter.disk import write_whole
from style_adapter.metrics import markdown_table

RESULTS = Path(__file__).parent / "results"


def run_cells(folder: Path, cells: Mapping[str, Callable[[], dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What each cell found, by name; cells that stand in `folder` are not run again."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, (name, run) in enumerate(cells.items(), 1):
        path = folder / f"{name}.json"
        if not path.exists():
            print(f"[{number}/{len(cells)}] {name}", flush=True)
            started = time.perf_counter()
            results = run()
            keep(path, results, seconds=round(time.perf_counter() - started, 1))
        found[name] = json.loads(path.read_text("utf-8"))["results"]
    return found


def found_cells(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the cells found that have been run so far."""
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(path.read_text("utf-8"))["results"] for name, path in paths.items() if path.exists()}


def part_of(names: Sequence[str], part: str) -> list[str]:
    """Of "I/N" every Nth name from the Ith on: what one of N processes does.

    >>> part_of(["a", "b", "c"], "1/2")
    ['b']
    """
    first, count = map(int, part.split("/"))
    return [*names[first::count]]


def keep(path: Path, results: Mapping[str, Any], *, indent: int | None = 2, **measured: Any) -> None:
    """Writes what was found, how it was measured, and with what; a file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"results": results, **measured, "machine": machine()}
    write_whole(path, json.dumps(kept, indent=indent) + "\n")


def machine() -> dict[str, Any]:
    """What the numbers were measured with."""
    packages = ("torch", "transformers", "peft", "accelerate", "style_adapter")
    setting = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.machine()}
    return setting | {package: version(package) for package in packages} | {"commit": commit()}


def commit() -> str:
    """The commit that runs, marked where files differ from it; nothing outside a clone."""
    asked = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(asked, cwd=RESULTS.parent, capture_output=True, text=True, check=False).stdout.strip()


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned as plain text too; the first row is the head, the first column words."""
    return markdown_table(rows[0], rows[1:])


def mean_and_spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and half the distance between the extremes where there are several."""
    mean = sum(values) / len(values)
    spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread}"
