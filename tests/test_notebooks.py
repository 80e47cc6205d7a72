"""The notebooks: one text as script and as notebook, and they run."""

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


# Each with a setting that makes it short, and what it must have printed.
NOTEBOOKS = {
    "tour": ({"STEPS": "2"}, ["blend(3*kjv, modern): [", "1.2*kjv + -0.2*modern"]),
    "two_piles": ({"STEPS": "2"}, ["modern texts", "best of 4"]),
    "from_loras": ({}, ["largest difference of the exported mixture"]),
    "style_classifier": ({"EPOCHS": "1"}, ["neutral", "macro avg"]),
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_and_script_say_the_same(name):
    jupytext = pytest.importorskip("jupytext")
    script, notebook = (jupytext.read(EXAMPLES / f"{name}.{kind}") for kind in ("py", "ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in each.cells] for each in (script, notebook)]
    assert cells[0] == cells[1]
    assert all(not cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_runs_with_few_steps(tmp_path, name):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    setting, wanted = NOTEBOOKS[name]
    environment = os.environ | setting | {"PYTHONPATH": str(EXAMPLES)}
    command = [sys.executable, "-c", EXECUTE, str(EXAMPLES / f"{name}.ipynb"), str(tmp_path / "run.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    ran = json.loads((tmp_path / "run.ipynb").read_text("utf-8"))["cells"]
    printed = "".join("".join(output.get("text", "")) for cell in ran for output in cell.get("outputs", []))
    assert [text for text in wanted if text not in printed] == []
