"""How a run went and what it left: quality against steps, and the gates of the styles.

    python benchmarks/trained.py --adapter runs/quickstart --base FOLDER  # seconds; kept in benchmarks/results/trained

J, style accuracy and BLEU are what the run's own evaluations of development rows logged, by direction; steps are the
optimizer's. A gate has one number a rank; all ranks start at 1, where the styles are one.
"quickstart-r8" is `python examples/quickstart.py --rank 8 --output runs/quickstart-r8`.

The folder is that of a run: an adapter with the `trainer_state.json` that `write_report` leaves beside it.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cells import RESULTS, keep, table

from style_adapter import gates_of, load

MEASURED = {"joint": "J", "style_accuracy": "style", "bleu": "BLEU"}


def portrait(folder: Path, base: str | None) -> dict[str, Any]:
    """The run's evaluations, and the gates of its adapter: {style: {layer: one number a rank}}."""
    lines = json.loads((folder / "trainer_state.json").read_text("utf-8"))["log_history"]
    model, _ = load(str(folder), base=base)
    gates = {
        style: {layer: [round(g, 3) for g in gate.tolist()] for layer, gate in layers.items()}
        for style, layers in gates_of(model).items()
    }
    return {"history": [line for line in lines if "eval_style_score" in line], "gates": gates}


def report(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The table: a row an evaluation of each run."""
    styles = dict.fromkeys(style for run in found.values() for style in run["gates"])
    head = ("run", "step", *(f"{shown} {style}" for style in styles for shown in MEASURED.values()))
    rows = []
    for name, run in sorted(found.items()):
        for line in run["history"]:
            numbers = [
                f"{line[key]:.{1 if number == 'bleu' else 3}f}" if (key := f"eval_{style}_{number}") in line else ""
                for style in styles
                for number in MEASURED
            ]
            rows.append((name, str(line["step"]), *numbers))
    return table([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the run")
    parser.add_argument("--base", help="folder or hub id of the backbone, where the recorded one is not at hand")
    parser.add_argument("--name", help="of the run on the page (default: the folder's name)")
    options = parser.parse_args()
    name = options.name or options.adapter.name
    found = portrait(options.adapter, options.base)
    keep(RESULTS / "trained" / f"{name}.json", found, indent=None)  # thousands of numbers
    print(report({name: found}))


if __name__ == "__main__":
    main()
