"""Time to start: what `import style_adapter` and `style-adapter --help` add to `import peft`.

    python benchmarks/start_time.py            # minutes; writes benchmarks/results/start_time.json
    python benchmarks/start_time.py --quick    # 3 rounds, nothing written

Each in a fresh interpreter, which tells the processor time from its first line to its last: in one round `import peft`,
then with `import style_adapter` after it, then with the terminal's help printed too. Medians are shown, and the medians
of the rounds' differences to `import peft` alone.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping

from cells import RESULTS, keep, table
from timings import turned

HELP = """
import contextlib, io, sys
from style_adapter.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
"""
WAYS = {
    "import peft": "import peft",
    "import style_adapter": "import peft, style_adapter",
    "style-adapter --help": "import peft" + HELP,
}


def seconds(code: str) -> float:
    """Processor time of some code in a new interpreter."""
    timed = f"import time\nbegun = time.process_time()\n{code}\nprint(time.process_time() - begun)"
    run = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each way, and of what it adds."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(rounds + 1):
        for name in turned([*WAYS], turn):
            spent = seconds(WAYS[name])
            if turn:  # the first round fills the disk's cache
                times[name].append(spent)
    bare = times["import peft"]
    added = {name: [one - base for one, base in zip(each, bare, strict=True)] for name, each in times.items()}
    return {name: {"seconds": statistics.median(times[name]), "added": statistics.median(added[name])} for name in WAYS}


def report(found: Mapping[str, Mapping[str, float]]) -> str:
    """The table."""
    rows = [(name, f"{row['seconds']:.2f}", f"{row['added']:.2f}") for name, row in found.items()]
    return table([("to start with", "seconds", "more than peft"), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds, results not written")
    options = parser.parse_args()
    rounds = 3 if options.quick else 15
    found = measure(rounds)
    print(report(found))
    if not options.quick:
        keep(RESULTS / "start_time.json", found, setting={"rounds": rounds})


if __name__ == "__main__":
    main()
