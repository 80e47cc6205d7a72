"""Everything that was measured, on one page: docs/results.md and its pictures, from the JSON files in results.

    make docs                      # sets everything up and runs this
    python benchmarks/report.py    # in an environment that has it all

A benchmark keeps `results/NAME.json`, or cells in `results/NAME/`, and its module has `report(found)`, which makes its
table. Title, text and command of a section are the module's docstring: a first line, "title: more", then the commands,
then a paragraph for the page.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cells import RESULTS
from pictures import Picture, pictures_of

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = "results"  # the folder of the pictures, beside the page
# In the order of the page; what has no script here yet is left out.
BENCHMARKS = ("yelp", "yelp_table", "yelp_ablation", "bible", "few_shot", "aspects", "trained", "strength", "ablation")
BENCHMARKS += ("stability", "augmentation", "mixing", "game_cost", "step_time", "inference_time", "switching", "serve")
BENCHMARKS += ("scale", "start_time")
KEPT = {"yelp_table": "yelp/table"}  # results that lie elsewhere than under the benchmark's own name
HEAD = """# Results

What `make docs` makes of the files in `benchmarks/results`; change those by running a benchmark, not this page. Several
runs of one kind are given as their mean ± half the distance between the extremes."""


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark's module says of itself, and what it kept.

    Attributes:
        name: Of the module, and of its results.
        doc: The module's docstring.
        report: Results -> the table.
        found: The results: of a file, or of a folder {cell: results}; nothing where it was not run.
        machines: What they were measured with, one a file.
    """

    name: str
    doc: str
    report: Callable[[Mapping[str, Any]], str]
    found: dict[str, Any]
    machines: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """The first line up to its colon."""
        return re.split(r"[:.] |\.$", self.doc.splitlines()[0])[0]

    @property
    def command(self) -> str:
        """The first command of the docstring that runs this file."""
        found = re.search(rf"^    (.*benchmarks/{self.name}\.py.*?)(  +#.*)?$", self.doc, re.MULTILINE)
        assert found, f"{self.name}: the docstring must hold the command"
        return found[1]

    @property
    def text(self) -> str:
        """What the first line says after its colon, and the paragraph after the commands."""
        more = self.doc.splitlines()[0].removeprefix(self.title).lstrip(":. ")
        plain = [part for part in self.doc.split("\n\n")[1:] if not part.startswith("    ")]
        return "\n\n".join(filter(None, [more[:1].upper() + more[1:], *plain[:1]])).strip()

    @property
    def pictures(self) -> dict[str, Picture]:
        """What is drawn of it, by file name."""
        return pictures_of(self.name, self.found)

    def section(self) -> str:
        """Title, text, table, pictures, and how they were made."""
        shown = [f"![{p.caption}]({PICTURES}/{file.replace(' ', '%20')})" for file, p in self.pictures.items()]
        made = f"Made by `{self.command}`: {measured_with(self.machines)}."
        return "\n\n".join([f"## {self.title}", self.text, self.report(self.found), *shown, made])


def benchmark(name: str, results: Path) -> Benchmark:
    """One benchmark with what it kept below `results`."""
    module = import_module(name)
    file, folder = results / f"{KEPT.get(name, name)}.json", results / name
    others = {results / f"{place}.json" for place in KEPT.values()}
    paths = [file] if file.exists() else sorted({*folder.glob("*.json")} - others)
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in paths}
    found = {cell: each["results"] for cell, each in kept.items()}
    machines = [each["machine"] for each in kept.values()]
    return Benchmark(name, module.__doc__ or "", module.report, found[file.stem] if file.exists() else found, machines)


def measured_with(machines: list[dict[str, Any]]) -> str:
    """Kind of machine and versions; where files differ in one, all its values."""
    names = dict.fromkeys(name for machine in machines for name in machine)
    values = {n: dict.fromkeys(str(m[n]) for m in machines if n in m) for n in names}
    return ", ".join(f"{name} {' / '.join(each)}" for name, each in values.items())


def benchmarks(results: Path) -> list[Benchmark]:
    """Every benchmark that has a script, in the order of the page."""
    here = [name for name in BENCHMARKS if Path(__file__).with_name(f"{name}.py").exists()]
    return [benchmark(name, results) for name in here]


def page(results: Path = RESULTS) -> str:
    """The page's text."""
    every = benchmarks(results)
    sections = [each.section() for each in every if each.found]
    missing = [f"- {each.title}: `{each.command}` makes it." for each in every if not each.found]
    if missing:
        sections.append("## Not measured here yet\n\n" + "\n".join(missing))
    return "\n\n".join([HEAD, *sections]) + "\n"


def write(docs: Path = DOCS, results: Path = RESULTS) -> None:
    """The page and its pictures, into `docs`; pictures of what is no more go."""
    drawn = {file: picture for each in benchmarks(results) for file, picture in each.pictures.items() if each.found}
    folder = docs / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for old in set(folder.glob("*.svg")) - {folder / file for file in drawn}:
        old.unlink()
    for file, picture in drawn.items():
        picture.draw(folder / file)
    (docs / "results.md").write_text(page(results), "utf-8")


if __name__ == "__main__":
    write()
