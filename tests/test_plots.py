"""Pictures of a run, from lines such as Trainer logs, and of an adapter's gates."""

import sys

import pytest
import torch
from conftest import adapted
from matplotlib.figure import Figure
from matplotlib.image import imread
from peft import PeftModel

from style_adapter import gates_of, plot_gates
from style_adapter.plots import plot_intervals, plot_losses, plot_styles, plot_trade_off, series

HISTORY = [
    {"step": 1, "loss": 3.0, "loss_ce": 2.0, "loss_adv": 0.7, "loss_d_adv": 1.4},
    {"step": 2, "loss": 2.0, "loss_ce": 1.0, "loss_adv": 0.8, "loss_d_adv": 1.2},
    {"step": 2, "eval_kjv_style_accuracy": 0.5, "eval_style_score": 0.3},
    {"step": 4, "eval_kjv_style_accuracy": 0.9, "eval_style_score": 0.6},
]
PLOTS = [plot_losses, plot_styles]


@pytest.mark.parametrize("plot", PLOTS)
def test_a_png_with_something_drawn_is_written_its_folder_too(tmp_path, plot):
    plot(HISTORY, tmp_path / "plots" / "run.png")
    plot([], tmp_path / "empty.png")
    drawn, empty = imread(tmp_path / "plots" / "run.png"), imread(tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")
    assert drawn.shape == empty.shape
    assert (drawn != empty).any()


def test_runs_are_drawn_with_their_intervals_and_as_dots(tmp_path):
    runs = {"before": {"kjv": (0.2, 0.1, 0.3)}, "after": {"kjv": (0.6, 0.5, 0.7)}}
    plot_intervals(runs, tmp_path / "joint.png", label="J")
    plot_intervals({run: {"kjv": (0.2, 0.1, 0.3)} for run in runs}, tmp_path / "same.png", label="J")
    plot_trade_off({"before": (0.1, 40.0), "after": (0.9, 45.0)}, tmp_path / "dots.png", labels=("style", "BLEU"))
    plot_trade_off({}, tmp_path / "none.png", labels=("style", "BLEU"))
    for one, other in (("joint", "same"), ("dots", "none")):
        assert (imread(tmp_path / f"{one}.png") != imread(tmp_path / f"{other}.png")).any()


def test_series_take_the_lines_that_hold_the_number():
    assert series(HISTORY, "eval_style_score") == ([2, 4], [0.3, 0.6])
    assert series(HISTORY, "nothing") == ([], [])


@pytest.mark.parametrize("plot", PLOTS)
def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch, plot):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib; pip install 'style_adapter\[eval\]'"):
        plot(HISTORY, tmp_path / "run.png")


def test_gates_are_the_rows_of_the_layers_tables(model):
    found = gates_of(model)
    assert list(found) == list(model.styles)
    for row, layers in enumerate(found.values()):
        tables = {n: p for n, p in model.named_parameters() if ".style_adapter_gate." in n}
        assert len(layers) == len(tables) > 0
        for layer, gate in layers.items():
            torch.testing.assert_close(gate, tables[f"base_model.model.{layer}.style_adapter_gate.default.weight"][row])
    mixture = gates_of(model, ["pirate"])
    assert list(mixture) == ["pirate"]


def drawn(model: PeftModel, path, **options) -> Figure:
    """The figure that `plot_gates` makes, caught on its way to the file."""
    with pytest.MonkeyPatch.context() as patch:
        kept: list[Figure] = []
        patch.setattr("style_adapter.plots.save_figure", lambda figure, _: kept.append(figure))
        plot_gates(model, path, **options)
    return kept[0]


def test_each_style_has_a_panel_that_shows_its_gates_layer_by_rank(model, tmp_path):
    panels = [axes for axes in drawn(model, tmp_path / "gates.png").axes if axes.images]
    assert [panel.get_title() for panel in panels] == ["modern", "kjv", "pirate"]
    for panel in panels:
        shown = torch.tensor(panel.images[0].get_array().tolist())
        assert torch.equal(shown, torch.stack([*gates_of(model)[panel.get_title()].values()]))
    assert len({panel.images[0].get_clim() for panel in panels}) == 1  # one colour is one number in all panels


def test_a_layer_of_lower_rank_leaves_the_other_ranks_blank(backbone, tmp_path):
    model = adapted(backbone, rank_pattern={"q_proj": 2})
    panel = drawn(model, tmp_path / "gates.png", styles=["kjv"]).axes[0]
    shown = panel.images[0].get_array()
    names = list(gates_of(model)["kjv"])
    blank = [name for name, row in zip(names, shown.mask, strict=True) if row.tolist() == [False, False, True, True]]
    assert blank == [name for name in names if name.endswith("q_proj")] != []


def test_a_picture_of_equal_gates_is_equal_bytes(model, tmp_path):
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        plot_gates(model, tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with pytest.raises(ValueError, match="styles='elvish' must be one of the adapter's styles: modern, kjv, pirate"):
        plot_gates(model, tmp_path / "a.svg", styles=["elvish"])
