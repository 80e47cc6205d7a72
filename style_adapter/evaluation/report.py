"""What an evaluation found: numbers with intervals by run and direction, tables, files, plots."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..metrics import Difference, Estimate, Number, difference, markdown_table
from ..plots import plot_intervals, plot_trade_off

ACCURACY = "style_accuracy"
OVERALL = "overall"
# What the table shows of each number, and how; the accuracies of further judges follow the first one's.
TITLES = {
    ACCURACY: ("style accuracy", ".3f"),
    "bleu": ("BLEU", ".1f"),
    "self_bleu": ("self-BLEU", ".1f"),
    "self_similarity": ("similarity", ".3f"),
    "joint": ("J", ".3f"),
    "perplexity": ("perplexity", ".1f"),
    "copy_rate": ("copies", ".3f"),
    "distinct_2": ("distinct-2", ".3f"),
}


@dataclass(frozen=True)
class Evaluation:
    """What some runs wrote for the same lines, and every number of it.

    Attributes:
        outputs: The texts by run: "copy", "before", "after", the names of other systems, "human 1" and on.
        numbers: Run -> name -> what a number is estimated from.
        directions: The rows of each target style.
        settings: What must be said for others to compare: BLEU's signature, `samples`, `seed`.
    """

    outputs: dict[str, list[str]]
    numbers: dict[str, dict[str, Number]]
    directions: dict[str, Any]
    settings: dict[str, Any]

    @cached_property
    def scores(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        """Run -> direction or "overall" -> name -> the number with its 95 % interval."""
        return {
            run: {
                direction: {name: number.estimate(groups, **self._draws) for name, number in numbers.items()}
                for direction, groups in self._groups.items()
            }
            for run, numbers in self.numbers.items()
        }

    def differences(self, run: str = "after", baseline: str = "before") -> dict[str, dict[str, Difference]]:
        """Direction or "overall" -> name -> the number of `run` less that of `baseline`, tested on the same lines.

        Raises:
            ValueError: One of them is no run.
        """
        for name in (run, baseline):
            if name not in self.numbers:
                raise ValueError(f"{name!r} must be one of the runs {list(self.numbers)}")
        mine, theirs = self.numbers[run], self.numbers[baseline]
        return {
            direction: {name: difference(mine[name], theirs[name], groups, **self._draws) for name in mine}
            for direction, groups in self._groups.items()
        }

    def table(self) -> str:
        """The Markdown table: for each direction, and overall, one line a run; J with its interval."""
        names = [name for name in self._names if all(name in numbers for numbers in self.numbers.values())]
        head = ["to", "run", *(_title(name)[0] for name in names)]
        rows = [
            [direction, run, *(_cell(name, self.scores[run][direction][name]) for name in names)]
            for direction in self._groups
            for run in self.numbers
        ]
        return markdown_table(head, rows, names=2)

    def difference_table(self, run: str = "after", baseline: str = "before") -> str:
        """The Markdown table of `differences`: value, 95 % interval and p of each number that `table` shows."""
        head = ["to", "number", f"{run} - {baseline}", "95 % interval", "p"]
        rows = []
        for direction, found in self.differences(run, baseline).items():
            for name in (name for name in self._names if name in found):
                (title, form), one = _title(name), found[name]
                interval = f"[{one.low:{form}}, {one.high:{form}}]"
                p_value = "<0.001" if one.p_value < 0.0005 else f"{one.p_value:.3f}"
                rows.append([direction, title, f"{one.value:{form}}", interval, p_value])
        return markdown_table(head, rows, names=2)

    def report(self) -> str:
        """Markdown: the table, what the adapter changed, and how the numbers were made."""
        parts = [self.table()]
        if {"after", "before"} <= self.numbers.keys():
            parts.append(self.difference_table())
        samples = self.settings["samples"]
        parts.append(f"J: style x content x fluency, line by line. 95 % intervals and p: {samples} samples of lines.")
        parts.append(f"BLEU: {self.settings['bleu']}.")
        if any(run.startswith("human ") for run in self.numbers):
            parts.append("Each human reference is scored against the others: one less than the systems have.")
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """{"runs": {run: {direction: {name: {"value", "low", "high"}}}}, "after - before": ..., "settings": ...}."""
        runs = {
            run: {direction: _as_dicts(found) for direction, found in by_direction.items()}
            for run, by_direction in self.scores.items()
        }
        found: dict[str, Any] = {"runs": runs, "settings": self.settings}
        if {"after", "before"} <= self.numbers.keys():
            found["after - before"] = {direction: _as_dicts(one) for direction, one in self.differences().items()}
        return found

    def save(self, folder: str | Path) -> None:
        """Writes `metrics.json`, `metrics.md` and, where matplotlib is installed, `joint.png` and `trade_off.png`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", "utf-8")
        (folder / "metrics.md").write_text(self.report() + "\n", "utf-8")
        joint = {run: {d: one["joint"] for d, one in found.items()} for run, found in self.scores.items()}
        content = "bleu" if all("bleu" in numbers for numbers in self.numbers.values()) else "self_bleu"
        overall = {run: next(reversed(found.values())) for run, found in self.scores.items()}
        points = {run: (one[ACCURACY].value, one[content].value) for run, one in overall.items()}
        try:
            plot_intervals(
                {run: {d: (e.value, e.low, e.high) for d, e in found.items()} for run, found in joint.items()},
                folder / "joint.png",
                label="J",
            )
            plot_trade_off(points, folder / "trade_off.png", labels=("style accuracy", TITLES[content][0]))
        except ImportError as error:
            print(f"No plots: {error}")

    @property
    def _draws(self) -> dict[str, int]:
        """How intervals are drawn."""
        return {"samples": self.settings["samples"], "seed": self.settings["seed"]}

    @property
    def _groups(self) -> dict[str, Any]:
        """The rows of each direction alone, and of all of them where there are several."""
        alone = {direction: [rows] for direction, rows in self.directions.items()}
        return alone if len(alone) == 1 else alone | {OVERALL: list(self.directions.values())}

    @property
    def _names(self) -> list[str]:
        """The numbers that tables show, in their order."""
        first = next(iter(self.numbers.values()))
        accuracies = [name for name in first if name.startswith(ACCURACY)]
        return accuracies + [name for name in TITLES if name in first and name not in accuracies]


def _title(name: str) -> tuple[str, str]:
    """The column's head and how its numbers are written."""
    if name in TITLES:
        return TITLES[name]
    title, form = TITLES[ACCURACY]
    return f"{title}, {name.removeprefix(ACCURACY + '_')}", form


def _cell(name: str, one: Estimate) -> str:
    """The number, J with its interval."""
    form = _title(name)[1]
    interval = f" [{one.low:{form}}, {one.high:{form}}]" if name == "joint" else ""
    return f"{one.value:{form}}{interval}"


def _as_dicts(found: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    """Ready for JSON."""
    return {name: one.to_dict() for name, one in found.items()}
