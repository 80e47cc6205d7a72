"""Systems that learn the same pairs in the same number of steps, each at the rate that development rows choose.

A contest has two rounds. First every system trains once at each of its learning rates, and is judged on development
rows. Then it trains anew, with other seeds, at the rate that was best there, and is judged on test rows, once.
"""

import argparse
import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import datasets
import torch
from cells import RESULTS, found_cells, mean_and_spread, part_of, run_cells, table
from datasets import Dataset
from peers import lora, one_each, one_for_all, top_blocks
from peft import get_peft_model
from runs import GAME, NO_GAME, Run, Trained, load_smollm2, mean_of, metrics_of, trained_adapter

from style_adapter import StyleAdapterConfig, StyleJudge, StyleTrainingArguments
from style_adapter.tasks import TASKS, Setting

R = 16
COPY = "copied input"
SHOWN = {"bleu": ("BLEU", 1), "style_accuracy": ("style", 3), "joint": ("J", 3)}


@dataclass(frozen=True)
class PairedSet:
    """What is to be learnt; all rows have `source`, `target` and `style`."""

    styles: tuple[str, ...]
    """The directions, by the style of their targets."""
    train: Dataset
    """What every system sees."""
    dev: Dataset
    """What chooses the learning rate."""
    test: Dataset
    """What the last table is of."""
    judge: StyleJudge
    """Tells the styles apart; fitted on training lines alone."""


System = Callable[[PairedSet, Run], Trained]


def adapter_for_all(data: PairedSet, run: Run, *, game: bool = False) -> Trained:
    """One adapter for all directions, on the likelihood alone or, from half of the steps on, with the game too."""
    options = {**GAME, "novel_token_weight": 2.0, "adversary_start": run.steps // 2} if game else NO_GAME
    return trained_adapter(data.train, data.styles, run, config={"r": R, "alpha": 2.0 * R}, **options)


def lora_each(data: PairedSet, run: Run, *, r: int | None = None) -> Trained:
    """One LoRA for each direction; together they have the rank of the adapter unless `r` says otherwise."""
    return one_each(data.train, run, partial(lora, r=r or R // len(data.styles)))


def lora_for_all(data: PairedSet, run: Run) -> Trained:
    """One LoRA of the adapter's rank for all directions, which the prompt names."""
    return one_for_all(data.train, run, partial(lora, r=R))


def blocks_each(data: PairedSet, run: Run, *, count: int) -> Trained:
    """The last blocks trained whole, for each direction anew."""
    return one_each(data.train, run, partial(top_blocks, count=count))


@dataclass(frozen=True)
class Contest:
    """Who competes on what."""

    sets: Mapping[str, Callable[[int], PairedSet]]
    """Each set, by the seed of what is drawn for it."""
    steps: Mapping[str, int]
    """Steps of a system on each set, all its models together."""
    systems: Mapping[str, tuple[System, Sequence[float]]]
    """Each system with the learning rates to choose from."""
    criterion: str
    """The metric whose mean over the directions chooses."""
    seeds: Sequence[int] = (1, 2)
    """Of the second round; the first has seed 0."""
    chosen_on: str | None = None
    """The set whose development rows choose for all sets; each for itself if left out."""
    rows: int | None = None
    """Rows that are judged, where not all are."""
    seconds: float = math.inf
    """Processor time after which a system's training ends early."""

    def look(self, seconds: float) -> "Contest":
        """The same with one rate, one seed, few rows and short training."""
        systems = {name: (system, rates[1:2]) for name, (system, rates) in self.systems.items()}
        return replace(self, systems=systems, seeds=self.seeds[:1], rows=8, seconds=seconds)


def first_round(contest: Contest, name: str) -> dict[str, tuple[str, float]]:
    """The cells that choose the rate of system `name`: cell -> (set, rate)."""
    on = contest.sets if contest.chosen_on is None else [contest.chosen_on]
    return {f"{s}, {name}, rate {rate:g}": (s, rate) for s in on for rate in contest.systems[name][1]}


def cells(contest: Contest, folder: Path, names: Sequence[str]) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every cell of the systems `names`: the choice of each, then the first seed of all before the second of any."""
    found = {
        cell: partial(run_cell, contest, s, name, rate, seed=0, split="dev")
        for name in names
        for cell, (s, rate) in first_round(contest, name).items()
    }
    found |= {f"{s}, {COPY}": partial(copy_cell, contest, s) for s in contest.sets}
    for seed in contest.seeds:
        for s in contest.sets:
            for name in names:
                found[f"{s}, {name}, seed {seed}"] = partial(last_cell, contest, folder, s, name, seed)
    return found


def last_cell(contest: Contest, folder: Path, s: str, name: str, seed: int) -> dict[str, Any]:
    """System `name` at its chosen rate, on test rows."""
    return run_cell(contest, s, name, chosen_rate(contest, folder, s, name), seed=seed, split="test")


def chosen_rate(contest: Contest, folder: Path, s: str, name: str) -> float:
    """The rate that was best on development rows."""
    found = found_cells(folder, [*first_round(contest, name)])
    scores = {
        cell["rate"]: score(cell, contest.criterion)
        for cell in found.values()
        if cell["set"] == (contest.chosen_on or s)
    }
    return max(scores, key=lambda rate: scores[rate])


def score(cell: Mapping[str, Any], metric: str) -> float:
    """The mean of a metric over the directions of a cell."""
    return mean_of(cell["metrics"], metric, cell["styles"])


def run_cell(contest: Contest, s: str, name: str, rate: float, *, seed: int, split: str) -> dict[str, Any]:
    """The numbers of one system trained once."""
    torch.set_num_threads(1)  # processor time is that of one core
    data = contest.sets[s](seed)
    trained = contest.systems[name][0](data, Run(rate, contest.steps[s], seed, contest.seconds))
    rows = chosen_rows(contest, getattr(data, split))
    found = judged(data, rows, trained.rewrite(rows))
    found |= {"set": s, "system": name, "rate": rate, "seed": seed, "split": split, "parameters": trained.parameters}
    found |= {"steps": trained.steps, "processor_seconds": round(trained.seconds, 1)}
    del trained
    gc.collect()
    return found


def copy_cell(contest: Contest, s: str) -> dict[str, Any]:
    """The numbers of the test sources as they are."""
    data = contest.sets[s](contest.seeds[0])
    rows = chosen_rows(contest, data.test)
    return judged(data, rows, rows["source"]) | {"set": s, "system": COPY, "split": "test"}


def chosen_rows(contest: Contest, rows: Dataset) -> Dataset:
    """The rows to judge."""
    return rows if contest.rows is None else rows.select(range(contest.rows))


def judged(data: PairedSet, rows: Dataset, texts: Sequence[str]) -> dict[str, Any]:
    """The metrics of `texts`, fluency by the same frozen backbone for all systems."""
    model, tokenizer = frozen_backbone(data.styles)
    setting = Setting(model, tokenizer, StyleTrainingArguments(mkdtemp()), data.judge)
    return {"metrics": metrics_of(texts, rows, TASKS["transfer"], setting), "styles": data.styles}


@cache
def frozen_backbone(styles: tuple[str, ...]) -> tuple[Any, Any]:
    """The backbone with an adapter that knows the styles and is never on: what the metrics read texts with."""
    backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
    config = StyleAdapterConfig(styles=[*styles], r=1, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return get_peft_model(backbone, config).eval(), tokenizer


def report(contest: Contest, found: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the test rows for each set, then how the rates were chosen."""
    parts = []
    for s in contest.sets:
        of_set = [cell for cell in found.values() if cell["set"] == s and cell["split"] == "test"]
        parts += [f"{s}, test\n\n{test_table(of_set, contest.criterion)}"] if of_set else []
    rows = [(f"{SHOWN[contest.criterion][0]} on development rows, mean of the directions, seed 0", "by learning rate")]
    for name in contest.systems:
        known = [found[cell] for cell in first_round(contest, name) if cell in found]
        for s in dict.fromkeys(cell["set"] for cell in known):
            scores = [shown(c, contest.criterion) for c in known if c["set"] == s]
            rows.append((f"{s}, {name}", ", ".join(scores)))
    return "\n\n".join([*parts, table(rows)])


def shown(cell: Mapping[str, Any], metric: str) -> str:
    """A rate and what came of it."""
    return f"{cell['rate']:g}: {score(cell, metric):.{SHOWN[metric][1]}f}"


def test_table(found: Sequence[Mapping[str, Any]], criterion: str) -> str:
    """A row a system, the metrics of each direction; several seeds as mean and half the distance of the extremes."""
    styles, (label, digits) = found[0]["styles"], SHOWN[criterion]
    columns = [(f"{style}_{metric}", places) for style in styles for metric, (_, places) in SHOWN.items()]
    head = ["system", "trained", "rate", "steps", f"mean {label}"]
    head += [f"{name} {style}" for style in styles for name, _ in SHOWN.values()]
    by_system: dict[str, list[Mapping[str, Any]]] = {}
    for cell in found:
        by_system.setdefault(cell["system"], []).append(cell)
    rows = []
    for name, runs in by_system.items():
        means = mean_and_spread([score(run, criterion) for run in runs], digits)
        values = [mean_and_spread([run["metrics"][key] for run in runs], places) for key, places in columns]
        rows.append([name, *about(runs[0]), means, *values])
    return table([head, *rows])


def about(cell: Mapping[str, Any]) -> list[str]:
    """What was trained, at which rate, for how many steps; nothing of a copy."""
    if cell["system"] == COPY:
        return [""] * 3
    return [f"{cell['parameters'] / 1e6:.2f} M", f"{cell['rate']:g}", str(cell["steps"])]


def main(name: str, doc: str | None, contest_of: Callable[[Path], Contest]) -> None:
    """The command line of a contest whose cells stand in benchmarks/results/`name`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the set")
    parser.add_argument("--seconds", type=float, help="a look: end each training after so much processor time")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth system from the Ith on, for N processes at once")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    contest, folder = contest_of(options.data), RESULTS / name
    if options.seconds is not None:
        contest, folder = contest.look(options.seconds), Path(mkdtemp())
    run_cells(folder, cells(contest, folder, part_of([*contest.systems], options.part)))
    print(report(contest, found_cells(folder, [*cells(contest, folder, [*contest.systems])])))
