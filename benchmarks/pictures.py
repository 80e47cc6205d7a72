"""The pictures of the report: what is drawn for each benchmark, from what it kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from style_adapter.plots import new_figure, plot_gate_table, plot_styles, save_figure

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """One file of the page.

    Attributes:
        caption: What it shows, one sentence.
        draw: Writes it.
    """

    caption: str
    draw: Callable[[Path], None]


def pictures_of(name: str, found: Found) -> dict[str, Picture]:
    """What is drawn for benchmark `name`, by file name; nothing for most."""
    return {f"{file}.svg": picture for file, picture in DRAWN.get(name, lambda _: {})(found).items()}


def of_trained(found: Found) -> dict[str, Picture]:
    """Quality against steps, and the gates, of each run."""
    pictures = {}
    for name, run in sorted(found.items()):
        pictures[f"steps-{name}"] = Picture(
            f"{name}: style accuracy and J (the style score) against steps.", partial(plot_styles, run["history"])
        )
        pictures[f"gates-{name}"] = Picture(
            f"{name}: the gate of each style, a row a layer, a column a rank.", partial(plot_gate_table, run["gates"])
        )
    return pictures


def of_strength(found: Found) -> dict[str, Picture]:
    """The trade-off curves."""
    caption = "Style accuracy against BLEU to the input as the strength, at each point, grows; others as dots."
    return {"strength": Picture(caption, partial(plot_trade_off, found))}


def of_yelp_table(found: Found) -> dict[str, Picture]:
    """Every system."""
    caption = "Accuracy against BLEU to the references: ours red, published ones grey, people blue. Lines of equal G."
    return {"yelp_table": Picture(caption, partial(plot_systems, found))}


def of_ablation(found: Found) -> dict[str, Picture]:
    """J of each cell."""
    return {"ablation": Picture("J of each run, a dot a seed.", partial(plot_cells, found))}


def plot_trade_off(found: Found, path: Path) -> None:
    """A curve an adapter over the strengths, and a dot for each peer."""
    figure, (panel,) = new_figure(1, width=7.0, height=5.0)
    for number, name in enumerate(sorted({cell["adapter"] for cell in found.values()})):
        cells = [cell for cell in found.values() if cell["adapter"] == name]
        curve = sorted((cell for cell in cells if "strength" in cell), key=lambda cell: cell["strength"])
        points = [(cell["overall"]["self_bleu"], cell["overall"]["style_accuracy"]) for cell in curve]
        panel.plot(*zip(*points, strict=True), marker="o", markersize=4, color=f"C{number}", label=name)
        for cell, point in zip(curve, points, strict=True):
            panel.annotate(f"{cell['strength']:.1f}", point, xytext=(4, 4), textcoords="offset points", fontsize=7)
        for cell in (cell for cell in cells if "peer" in cell):
            point = (cell["overall"]["self_bleu"], cell["overall"]["style_accuracy"])
            panel.plot(*point, marker="s", linestyle="", color=f"C{number}")
            panel.annotate(cell["peer"], point, xytext=(-4, 7), textcoords="offset points", fontsize=8, ha="right")
    panel.set(xlabel="content: BLEU to the input", ylabel="style accuracy", ylim=(-0.05, 1.05))
    panel.legend()
    save_figure(figure, path)


def plot_systems(found: Found, path: Path) -> None:
    """A dot a system, the three best published ones by name, people without; lines of equal G = sqrt(Acc x BLEU)."""
    figure, (panel,) = new_figure(1, width=7.0, height=5.0)
    named = [*found["ours"], *list(found["published"])[:3], *(n for n in found["others"] if not n.startswith("human"))]
    for kind, colour in (("published", "0.6"), ("others", "C0"), ("ours", "C3")):
        for name, ways in found[kind].items():
            point = (ways["both"]["bleu"][0], ways["both"]["accuracy"][0])
            panel.plot(*point, marker="o", markersize=4, linestyle="", color=colour)
            if name in named:  # ours to the left, away from the best of the others
                place = {"xytext": (-5, 3), "ha": "right"} if kind == "ours" else {"xytext": (5, -2)}
                panel.annotate(name, point, textcoords="offset points", fontsize=7, **place)
    for g in (50, 60, 70, 80):
        contents = [g * g / 100 + step / 10 for step in range(801)]
        panel.plot(contents, [g * g / content for content in contents], color="0.85", linewidth=1, zorder=0)
        panel.annotate(f"G = {g}", (g * g / 100, 100), fontsize=7, color="0.5", ha="center", va="bottom")
    panel.set(xlabel="content: BLEU to the references", ylabel="accuracy", xlim=(0, 80), ylim=(0, 105))
    save_figure(figure, path)


def plot_cells(found: Found, path: Path) -> None:
    """A row a run, a dot a seed; paired and unpaired runs in two colours."""
    scores: dict[str, list[float]] = {}
    for cell in sorted(found):
        scores.setdefault(cell.rpartition(", seed")[0], []).append(found[cell]["metrics"]["style_score"])
    figure, (panel,) = new_figure(1, width=8.0, height=1.0 + 0.26 * len(scores))
    for row, (name, values) in enumerate(scores.items()):
        colour = "C0" if name.startswith("paired") else "C1"
        panel.plot(values, [row] * len(values), marker="o", linestyle="", color=colour)
    panel.set(xlabel="J", yticks=range(len(scores)), yticklabels=list(scores))
    panel.grid(axis="x", alpha=0.3)
    panel.invert_yaxis()
    save_figure(figure, path)


DRAWN: dict[str, Callable[[Found], dict[str, Picture]]] = {
    "trained": of_trained,
    "strength": of_strength,
    "yelp_table": of_yelp_table,
    "ablation": of_ablation,
}
