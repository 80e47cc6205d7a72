"""Pictures of a run, from lines such as Trainer logs."""

import sys

import pytest
from matplotlib.image import imread

from style_adapter.plots import plot_losses, plot_styles, series

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


def test_series_take_the_lines_that_hold_the_number():
    assert series(HISTORY, "eval_style_score") == ([2, 4], [0.3, 0.6])
    assert series(HISTORY, "nothing") == ([], [])


@pytest.mark.parametrize("plot", PLOTS)
def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch, plot):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib; pip install 'style_adapter\[eval\]'"):
        plot(HISTORY, tmp_path / "run.png")
