"""The site: built strictly, every public name and every sentence of the monitor on it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import style_adapter
from style_adapter.recipe import load_recipe, parse_value
from style_adapter.trainer.monitor import STOPS, TROUBLES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_the_site_builds_strictly_with_every_name_of_the_api_page(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "api" / "index.html").read_text("utf-8")
    asked = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)
    assert [name for name in asked if f'id="{name}"' not in page] == []


def test_every_name_of_the_api_page_is_public():
    asked = re.findall(r"^::: style_adapter\.(\S+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)
    assert {*asked} <= {*style_adapter.__all__}


def test_everything_that_the_monitor_says_is_explained():
    page = re.sub(r"\.\.\.", "", (DOCS / "trouble.md").read_text("utf-8"))
    words = re.sub(r"\W+", " ", page)
    for check in (*TROUBLES, *STOPS):
        parts = [check.reason, *re.split(r"\{.*?\}", check.finding)] if check in TROUBLES else [check.reason]
        for part in parts:
            assert re.sub(r"\W+", " ", part).strip() in words, f"docs/trouble.md does not explain {check.finding!r}"


def test_every_page_is_in_the_navigation():
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert {*re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)} == pages


def test_every_file_that_a_page_names_is_there():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    named = {
        path
        for page in pages
        for path in re.findall(r"\b(?:examples|benchmarks|tests)/[\w/]+\.\w+", page.read_text("utf-8"))
    }
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_what_the_recipes_page_offers_to_add_can_be_added():
    rows = [re.findall(r"`(\w+): ([^`]+)`", line) for line in (DOCS / "recipes.md").read_text("utf-8").splitlines()]
    offered = [{name: parse_value(value) for name, value in row} for row in rows if row]
    assert len(offered) > 12
    pairs = {"model_name_or_path": "x", "output_dir": "x", "train_file": "x", "eval_file": "x"}
    piles = {"unpaired": ["a.txt", "b.txt"]}
    for row in offered:
        recipe = load_recipe(None, (piles if "rounds" in row else pairs) | row)
        assert row.items() <= recipe.given.items()
