"""Whether the unpaired game is stable: ten seeds of a short run, modern English <-> King James on SmolLM2-135M.

    python benchmarks/stability.py                 # about 40 minutes on one core; cells in benchmarks/results/stability
    python benchmarks/stability.py --seconds 10    # a look, written nowhere

Each seed trains for the same processor time with every term on, and is judged on 100 verses of Acts in both directions.
Reported are J and its factors, the steps that were dropped since a gradient was not finite, and whether the monitor of
the game had a reason to stop.
"""

import argparse
import gc
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from cells import RESULTS, mean_and_spread, run_cells, table
from kjv_runs import UNPAIRED, numbers, trained

SEEDS = range(10)
SHOWN = ("joint", "style_accuracy", "self_bleu", "copy_rate", "distinct_2")


def cell(seconds: float, seed: int) -> dict[str, Any]:
    """The numbers of one seed."""
    trainer = trained("unpaired", seconds, seed, watch_steps=20, **UNPAIRED)
    found = numbers(trainer) | {"stopped": trainer.stop_reason}
    del trainer
    gc.collect()
    return found


def report(found: dict[str, dict[str, Any]]) -> str:
    """A row a seed; at the end the mean, with half the distance between the extremes."""
    rows = [("seed", "steps", "dropped", *(f"{d} {name}" for d in ("kjv", "modern") for name in SHOWN), "stopped")]
    columns = [f"{direction}_{name}" for direction in ("kjv", "modern") for name in SHOWN]
    for name, cell_found in found.items():
        values = [f"{cell_found['metrics'].get(column, float('nan')):.3f}" for column in columns]
        dropped = cell_found.get("last_log", {}).get("skipped_steps", 0)
        rows.append((name, str(cell_found["steps"]), str(dropped), *values, cell_found["stopped"] or "no"))
    means = [
        mean_and_spread([each["metrics"].get(column, float("nan")) for each in found.values()]) for column in columns
    ]
    return table([*rows, ("mean", "", "", *means, "")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="training time of a seed (default: %(default)s)")
    options = parser.parse_args()
    whole = options.seconds == parser.get_default("seconds")
    folder = RESULTS / "stability" if whole else Path(mkdtemp())
    print(report(run_cells(folder, {f"seed {seed}": partial(cell, options.seconds, seed) for seed in SEEDS})))


if __name__ == "__main__":
    main()
