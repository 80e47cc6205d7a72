"""The tour: one text as script and as notebook, and it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
EXECUTE = """import sys, jupytext, nbclient
notebook = jupytext.read(sys.argv[1])
nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
jupytext.write(notebook, sys.argv[2])
"""


def test_notebook_and_script_of_the_tour_say_the_same():
    jupytext = pytest.importorskip("jupytext")
    script, notebook = (jupytext.read(EXAMPLES / f"tour.{kind}") for kind in ("py", "ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in each.cells] for each in (script, notebook)]
    assert cells[0] == cells[1]
    assert all(not cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
def test_the_notebook_runs_with_few_steps(tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    environment = os.environ | {"STEPS": "2", "PYTHONPATH": str(EXAMPLES)}
    command = [sys.executable, "-c", EXECUTE, str(EXAMPLES / "tour.ipynb"), str(tmp_path / "run.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ran = json.loads((tmp_path / "run.ipynb").read_text("utf-8"))["cells"]
    printed = ["".join(output.get("text", "")) for cell in ran for output in cell.get("outputs", [])]
    assert any("blend(3*kjv, modern): [" in text for text in printed)
    assert any("1.2*kjv + -0.2*modern" in text for text in printed)
