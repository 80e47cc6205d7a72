"""The page of results: made of the files in the repository, and of nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import report
import stability
from matplotlib.figure import Figure
from pictures import pictures_of, plot_cells, plot_trade_off

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "results.md").read_text("utf-8")
COPY = {"adapter": "a", "peer": "copied input", "overall": {"self_bleu": 100, "style_accuracy": 0.1}}
CURVE = {
    str(s): {"adapter": "a", "strength": s, "overall": {"self_bleu": 100 - 40 * s, "style_accuracy": s / 2}}
    for s in (1.0, 0.2, 0.6)
} | {"copy": COPY}


def test_the_page_in_the_repository_is_what_the_command_writes():
    assert report.page() == PAGE, "run `make docs`"


def test_the_pictures_of_the_page_are_those_in_its_folder():
    linked = {path.replace("%20", " ") for path in re.findall(r"!\[.*?\]\((.*?)\)", PAGE)}
    assert linked == {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / "results").iterdir()}


def test_whatever_is_kept_is_on_the_page():
    kept = {path.stem for path in report.RESULTS.iterdir() if path.suffix != ".md"}
    shown = {each.name for each in report.benchmarks(report.RESULTS) if f"## {each.title}\n" in PAGE}
    assert kept <= shown, "name the benchmark in report.BENCHMARKS and give its module `report(found)`"


def test_without_results_the_page_names_the_command_of_each(tmp_path):
    text = report.page(tmp_path)
    every = report.benchmarks(tmp_path)
    assert len(every) >= 8
    for each in every:
        assert f"- {each.title}: `{each.command}` makes it." in text
        assert each.command.startswith(f"python benchmarks/{each.name}.py")
    assert "|" not in text  # no table


def test_a_page_holds_what_was_measured_with_which_machines(tmp_path):
    file = report.RESULTS / "mixing.json"
    kept = json.loads(file.read_text("utf-8"))
    kept["machine"] |= {"torch": "9.9", "cores": 64}
    kept["results"]["style_adapter"]["ms"] = 123.456
    (tmp_path / "mixing.json").write_text(json.dumps(kept), "utf-8")
    text = report.page(tmp_path)
    assert re.search(r"\| style_adapter +\| +123\.46 \|", text)
    assert re.search(r"Made by `python benchmarks/mixing\.py`: torch 9\.9, .*, cores 64\.", text)
    assert report.measured_with([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {}]) == "a 1, b 2 / 3"


def test_writing_makes_page_and_pictures_anew_and_drops_old_ones(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old.svg").touch()
    report.write(tmp_path)
    assert (tmp_path / "results.md").read_text("utf-8") == PAGE
    there = {path.name for path in (tmp_path / "results").iterdir()}
    assert there == {path.name for path in (ROOT / "docs" / "results").iterdir()}


def test_the_last_row_of_the_stability_table_is_mean_and_half_range():
    values = [0.2, 0.5, 0.3]
    names = [f"{d}_{n}" for d in ("kjv", "modern") for n in stability.SHOWN]
    found = {
        f"seed {i}": {"metrics": dict.fromkeys(names, v), "steps": 3, "stopped": None} for i, v in enumerate(values)
    }
    cells = stability.report(found).splitlines()[-1].split("|")
    assert cells[4].strip() == f"{np.mean(values):.3f} ± {np.ptp(values) / 2:.3f}"


def caught(draw, found, monkeypatch) -> Figure:
    """The figure on its way to the file."""
    kept: list[Figure] = []
    monkeypatch.setattr("pictures.save_figure", lambda figure, _: kept.append(figure))
    draw(found, Path("unused.svg"))
    return kept[0]


def test_the_trade_off_goes_through_the_strengths_in_their_order_and_peers_are_dots(monkeypatch):
    panel = caught(plot_trade_off, CURVE, monkeypatch).axes[0]
    curve, *dots = (line.get_xydata().tolist() for line in panel.lines)
    np.testing.assert_allclose(curve, [[92, 0.1], [76, 0.3], [60, 0.5]])
    assert dots == [[[100, 0.1]]]
    assert [text.get_text() for text in panel.texts] == ["0.2", "0.6", "1.0", "copied input"]


def test_a_cell_is_a_row_and_a_seed_a_dot(monkeypatch):
    found = {f"paired, {name}, seed {seed}": {"metrics": {"style_score": j}} for name, seed, j in
             (("b", 0, 0.1), ("a", 0, 0.2), ("a", 1, 0.3))}  # fmt: skip
    panel = caught(plot_cells, found, monkeypatch).axes[0]
    assert [line.get_xydata().tolist() for line in panel.lines] == [[[0.2, 0], [0.3, 0]], [[0.1, 1]]]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["paired, a", "paired, b"]


@pytest.mark.parametrize("name", ["trained", "strength", "ablation"])
def test_equal_results_are_equal_pictures_byte_by_byte(tmp_path, name):
    found = CURVE if name == "strength" else report.benchmark(name, report.RESULTS).found
    for file, picture in pictures_of(name, found).items():
        for place in ("one", "two"):
            picture.draw(tmp_path / place / file)
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
        assert b"<svg" in (tmp_path / "one" / file).read_bytes()
