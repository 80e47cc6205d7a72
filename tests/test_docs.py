"""The site: built strictly, every public name and every sentence of the monitor on it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import style_adapter
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
