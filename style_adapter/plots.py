"""Pictures of a run, from what Trainer logged: needs matplotlib, in the extra `style_adapter[eval]`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Number = int | float
History = Sequence[Mapping[str, Number]]

LOSSES = {
    "generator": ("loss_ce", "loss_adv", "loss_feat", "loss_cls"),
    "discriminator": ("loss_d_adv", "loss_d_cls", "loss_d_r1"),
}


def series(history: History, name: str) -> tuple[list[Number], list[Number]]:
    """Steps and values of one logged number.

    >>> series([{"step": 10, "loss": 2.0}, {"step": 10, "eval_loss": 1.0}, {"step": 20, "loss": 1.5}], "loss")
    ([10, 20], [2.0, 1.5])
    """
    points = [(line["step"], line[name]) for line in history if name in line]
    return [p[0] for p in points], [p[1] for p in points]


def plot_losses(history: History, path: str | Path) -> None:
    """The losses of both sides over the steps, one panel a side, as PNG."""
    figure, panels = _figure(2)
    for panel, (side, names) in zip(panels, LOSSES.items(), strict=True):
        for name in names:
            steps, values = series(history, name)
            if steps:
                panel.plot(steps, values, label=name.removeprefix("loss_"), marker=".")
        panel.set(title=side, xlabel="step", ylabel="loss")
        if panel.lines:
            panel.legend()
    _save(figure, path)


def plot_styles(history: History, path: str | Path) -> None:
    """Style accuracy by direction and the style score over the steps, as PNG."""
    figure, panels = _figure(1)
    names = sorted({n for line in history for n in line if n.startswith("eval_") and n.endswith("style_accuracy")})
    for name in [*names, "eval_style_score"]:
        steps, values = series(history, name)
        if steps:
            label = name.removeprefix("eval_").replace("_style_accuracy", ": style accuracy").replace("_", " ")
            panels[0].plot(steps, values, label=label, marker="o")
    panels[0].set(title="evaluation", xlabel="step", ylim=(0, 1))
    if panels[0].lines:
        panels[0].legend()
    _save(figure, path)


def _figure(columns: int) -> tuple[Any, list[Any]]:
    """A figure without a window, and its panels."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib; pip install 'style_adapter[eval]'") from error
    figure = Figure(figsize=(5 * columns, 3.5), layout="constrained")
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def _save(figure: Any, path: str | Path) -> None:
    """Writes the PNG, its folder too."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
