"""Pictures of a run and of an adapter, PNG or SVG by the file's name: needs matplotlib, in `style_adapter[eval]`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel

from .model import gates_of

Number = int | float
History = Sequence[Mapping[str, Number]]
GateTable = Mapping[str, Mapping[str, Sequence[Number]]]
"""{style: {layer: its gate, one number a rank}}."""

LOSSES = {
    "generator": ("loss_ce", "loss_adv", "loss_feat", "loss_cls"),
    "discriminator": ("loss_d_adv", "loss_d_cls", "loss_d_r1"),
}
MOST_PANELS = 6
MOST_NAMES = 40


def series(history: History, name: str) -> tuple[list[Number], list[Number]]:
    """Steps and values of one logged number.

    >>> series([{"step": 10, "loss": 2.0}, {"step": 10, "eval_loss": 1.0}, {"step": 20, "loss": 1.5}], "loss")
    ([10, 20], [2.0, 1.5])
    """
    points = [(line["step"], line[name]) for line in history if name in line]
    return [p[0] for p in points], [p[1] for p in points]


def plot_losses(history: History, path: str | Path) -> None:
    """The losses of both sides over the steps, one panel a side."""
    figure, panels = new_figure(2)
    for panel, (side, names) in zip(panels, LOSSES.items(), strict=True):
        for name in names:
            steps, values = series(history, name)
            if steps:
                panel.plot(steps, values, label=name.removeprefix("loss_"), marker=".")
        panel.set(title=side, xlabel="step", ylabel="loss")
        if panel.lines:
            panel.legend()
    save_figure(figure, path)


def plot_styles(history: History, path: str | Path) -> None:
    """Style accuracy by direction and the style score over the steps."""
    figure, panels = new_figure(1)
    names = sorted({n for line in history for n in line if n.startswith("eval_") and n.endswith("style_accuracy")})
    for name in [*names, "eval_style_score"]:
        steps, values = series(history, name)
        if steps:
            label = name.removeprefix("eval_").replace("_style_accuracy", ": style accuracy").replace("_", " ")
            panels[0].plot(steps, values, label=label, marker="o")
    panels[0].set(title="evaluation", xlabel="step", ylim=(0, 1))
    if panels[0].lines:
        panels[0].legend()
    save_figure(figure, path)


def plot_gates(model: PeftModel, path: str | Path, *, styles: Sequence[str] | None = None) -> None:
    """The gates of the active adapter: a panel a style, a row a layer, a column a rank.

    Where two panels agree, the styles share what that rank does; a row of one colour is a layer that tells no ranks
    apart.

    Args:
        model: A model with a style adapter.
        path: The file; its folder is made if missing.
        styles: Which styles; the first 6 of the adapter if left out.

    Raises:
        ValueError: A style that the adapter lacks.
        ImportError: matplotlib is not installed.
    """
    found = gates_of(model, list(model.styles)[:MOST_PANELS] if styles is None else styles)
    plot_gate_table({style: {n: g.tolist() for n, g in gates.items()} for style, gates in found.items()}, path)


def plot_gate_table(gates: GateTable, path: str | Path) -> None:
    """What `plot_gates` draws, of gates that were read before."""
    figure, panels = new_figure(len(gates), width=3.2, height=5.0)
    ranks = max(len(gate) for layers in gates.values() for gate in layers.values())
    rows = {s: [[*g, *[math.nan] * (ranks - len(g))] for g in layers.values()] for s, layers in gates.items()}
    drawn = [gate for layers in gates.values() for each in layers.values() for gate in each]
    limits = {"vmin": min(drawn), "vmax": max(drawn)}
    for panel, (style, values) in zip(panels, rows.items(), strict=True):
        image = panel.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis", **limits)
        panel.set(title=style, xlabel="rank", ylabel="layer" if panel is panels[0] else "")
    figure.colorbar(image, ax=panels, label="gate")
    save_figure(figure, path)


def plot_intervals(
    runs: Mapping[str, Mapping[str, tuple[float, float, float]]], path: str | Path, *, label: str
) -> None:
    """(value, low, high) by run and direction as dots with their intervals, one panel a direction."""
    directions = list(dict.fromkeys(direction for found in runs.values() for direction in found))
    figure, panels = new_figure(max(1, len(directions)))
    for panel, direction in zip(panels, directions, strict=False):
        for row, found in enumerate(runs.values()):
            value, low, high = found[direction]
            panel.hlines(row, low, high, color="tab:blue")
            panel.plot(value, row, marker="o", color="tab:blue")
        panel.set(title=direction, xlabel=label, yticks=range(len(runs)), yticklabels=list(runs))
        panel.invert_yaxis()
    save_figure(figure, path)


def plot_trade_off(points: Mapping[str, tuple[float, float]], path: str | Path, *, labels: tuple[str, str]) -> None:
    """One named dot a run, what is gained against what is kept."""
    figure, panels = new_figure(1)
    for run, point in points.items():
        panels[0].plot(*point, marker="o")
        panels[0].annotate(run, point, textcoords="offset points", xytext=(5, 5), fontsize="small")
    panels[0].margins(0.15)  # room for the names
    panels[0].set(xlabel=labels[0], ylabel=labels[1])
    save_figure(figure, path)


def map_figure(
    points: Mapping[str, tuple[float, float]], *, here: tuple[float, float] | None = None, label: str = ""
) -> Any:
    """A dot a style, such as `StyleMap.points`, the first by name, and a cross with its label at `here`: a figure."""
    figure, (panel,) = new_figure(1, width=4.5, height=3.0)
    panel.plot([x for x, _ in points.values()], [y for _, y in points.values()], marker="o", linestyle="")
    marks = list(points.items())[:MOST_NAMES]
    if here is not None:
        panel.plot(*here, marker="x", markersize=9, markeredgewidth=2, linestyle="", color="tab:red")
        marks.append((label, here))
    for name, point in marks:  # a name is no formula
        panel.annotate(name, point, textcoords="offset points", xytext=(5, 5), fontsize="small", parse_math=False)
    panel.margins(0.25)
    panel.set_aspect("equal", adjustable="datalim")  # two styles lie on a line: what is left over is rounding
    panel.set(xticks=[], yticks=[])
    return figure


def new_figure(columns: int, *, width: float = 5.0, height: float = 3.5) -> tuple[Any, list[Any]]:
    """A figure without a window, and its panels, each of so many inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib; pip install 'style_adapter[eval]'") from error
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes the file, its folder too; the same picture is the same bytes, SVG as well."""
    from matplotlib import rc_context

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Text stays text, which is small; ids come from a fixed salt instead of a random one; no date is written.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "style_adapter"}):
        figure.savefig(path, dpi=120, metadata={"Date": None} if Path(path).suffix == ".svg" else None)
