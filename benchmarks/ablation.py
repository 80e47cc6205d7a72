"""What each term of the objective adds, at equal training time: modern English <-> King James, SmolLM2-135M, r = 16.

    python benchmarks/ablation.py                  # about 4 hours on one core; cells in benchmarks/results/ablation
    python benchmarks/ablation.py --part 0/2       # half of the cells, beside a process with the other half
    python benchmarks/ablation.py --seconds 20     # a look, written nowhere

Unpaired: each training verse is there in one version only. Each term is switched off in turn, and some are added.
Paired: both versions are there; adversary and features off and on. The guards of the game (old fakes, cautious
sampling, smoothed labels) are switched the other way than by default. Every cell trains for the same processor time on
one core, is judged on 100 verses of Acts in both directions by a judge that training never saw, and is run with two
seeds.

A run that is stopped goes on with the cells that are missing; delete a cell's file to run it again.
"""

import argparse
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from cells import RESULTS, found_cells, mean_and_spread, part_of, run_cells, table
from kjv_runs import STYLES, numbers, sampled, trained
from kjv_runs import UNPAIRED as RECIPE
from runs import GAME, NO_GAME, mean_of

SEEDS = (0, 1)
OLD_FAKES = {"replay_size": 256}
NOT_SMOOTHED = {"discriminator_smoothing": 0.0}
UNPAIRED: dict[str, dict[str, Any]] = {
    "all terms": {},
    "without a game": NO_GAME,
    "without adversary": {"w_adv": 0.0},
    "without features": {"w_feat": 0.0},
    "without classifier": {"w_cls": 0.0},
    "without rebuilding": {"w_rec": 0.0},
    "without translating back": {"w_bt": 0.0},
    "without markers taken out": {"marker_threshold": 0.0},
    "with divergence": {"w_kl": 0.1},
    "with diversity": {"w_div": 0.1, "noise_dim": 8},
    "with soft embeddings": {"estimator": "soft"},
    "with rewards": {"estimator": "reinforce", "w_feat": 0.0, "w_cls": 0.0},
    "with old fakes": OLD_FAKES,
    "drawn at temperature 0.7": {"sampling_temperature": 0.7},
    "drawn from the likeliest 0.9": {"sampling_top_p": 0.9},
    "labels not smoothed": NOT_SMOOTHED,
}
PAIRED: dict[str, dict[str, Any]] = {
    "likelihood alone": NO_GAME,
    "with adversary": {"w_adv": 0.05},
    "with features": {"w_adv": 0.0, "w_feat": 0.1},
    "with adversary, features, classifier": GAME,
    "the same at ten times the weight": {"w_adv": 0.5, "w_feat": 1.0, "w_cls": 0.5},
    "the same, likeliest token": GAME | {"estimator": "straight_through"},
    "with adversary, old fakes": {"w_adv": 0.05} | OLD_FAKES,
    "with adversary, labels not smoothed": {"w_adv": 0.05} | NOT_SMOOTHED,
}
TEMPERATURES = (0.5, 0.7, 1.0)  # of the likelihood's own samples
SHOWN = ("joint", "style_accuracy", "bleu", "self_bleu", "copy_rate", "distinct_2")


def cell(kind: str, options: dict[str, Any], seconds: float, seed: int) -> dict[str, Any]:
    """The numbers of one run, and of its samples at several temperatures where likelihood is all it had."""
    trainer = trained(kind, seconds, seed, **(RECIPE | options if kind == "unpaired" else options))
    found = numbers(trainer)
    if kind == "paired" and options == NO_GAME:
        found["sampled"] = {str(t): sampled(trainer, t, seed) for t in TEMPERATURES}
    del trainer
    gc.collect()
    return found


def cells(seconds: float) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every cell, the first seed of all before the second of any."""
    groups = {"paired": PAIRED, "unpaired": UNPAIRED}
    return {
        f"{kind}, {name}, seed {seed}": partial(cell, kind, options, seconds, seed)
        for seed in SEEDS
        for kind, group in groups.items()
        for name, options in group.items()
    }


def report(found: dict[str, dict[str, Any]]) -> str:
    """The table: means over directions and seeds, with half the distance between the seeds."""
    rows: dict[str, list[dict[str, float]]] = {}
    for name in filter(found.__contains__, cells(0.0)):
        results = found[name]
        plain = name.rpartition(", seed")[0]
        rows.setdefault(plain, []).append(results["metrics"] | {"steps": results["steps"]})
        for temperature, metrics in results.get("sampled", {}).items():
            rows.setdefault(f"{plain}, sampled at {temperature}", []).append(metrics | {"steps": results["steps"]})
    head = ("run", "steps", *(name.replace("_", " ") for name in SHOWN))
    body = []
    for name, seeds in rows.items():
        values = [
            mean_and_spread([mean_of(m, metric, STYLES) for m in seeds])
            for metric in SHOWN
            if f"kjv_{metric}" in seeds[0]
        ]
        body.append((name, f"{sum(m['steps'] for m in seeds) / len(seeds):.0f}", *values))
    return table([head, *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0, help="processor time of a cell (default: %(default)s)")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth cell from the Ith on, for N processes at once")
    options = parser.parse_args()
    whole = options.seconds == parser.get_default("seconds")
    folder = RESULTS / "ablation" if whole else Path(mkdtemp())
    all_cells = cells(options.seconds)
    run_cells(folder, {name: all_cells[name] for name in part_of([*all_cells], options.part)})
    print(report(found_cells(folder, [*all_cells])))


if __name__ == "__main__":
    main()
