"""Runs over a file that are killed and taken up again: `python files_worker.py ADAPTER INPUT OUTPUT KILL...`.

Not a test itself. It imports once and forks for each session. A kill is `writes:5`: after the fifth file that is put
on the disk, renamed or removed; or `half:2`: in the midst of the second shard. `memory BIG...` in place of the kills
prints by how many bytes the most memory held grows when BIG follows on INPUT.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from dying import begun, counted, die, status_of

from style_adapter import transfer_files
from style_adapter.files import parts

OPTIONS: dict[str, Any] = {"style_column": "style", "shard_rows": 3, "max_new_tokens": 4, "batch_size": 2}


def die_within(number: int) -> None:
    """Dies in the midst of writing the `number`-th shard."""
    countdown, write = [number], parts.WRITERS["jsonl"]

    def cut(rows: Any, path: Path, column: str, survey: Any) -> None:
        write(rows, path, column, survey)
        countdown[0] -= 1
        if countdown[0] == 0:
            os.truncate(path, path.stat().st_size // 2)
            die()

    parts.WRITERS["jsonl"] = cut


def session(adapter: str, given: str, output: str, kill: str) -> None:
    """Rewrites until the end, or until it is killed."""
    kind, _, when = kill.partition(":")
    if kind == "half":
        die_within(int(when))
    if kind == "writes":
        countdown = [int(when)]
        for name in ("fsync", "replace", "unlink"):
            counted(os, name, countdown)
    transfer_files(adapter, given, output, **OPTIONS)


def fork(*arguments: str) -> int:
    """Runs one session in a process of its own; its exit status."""
    return status_of(begun(session, *arguments))


def grown(adapter: str, small: str, output: str, big: str) -> int:
    """By how many bytes the most memory held at once grows when a big input follows on a small one."""
    most = []
    for name, given in (("small", small), ("big", big)):
        transfer_files(adapter, given, f"{output}/{name}", shard_rows=50, max_new_tokens=1)
        most.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return most[1] - most[0]


def main(adapter: str, given: str, output: str, kills: list[str]) -> None:
    if kills[0] == "memory":
        print(json.dumps([grown(adapter, given, f"{output}/{i}", big) for i, big in enumerate(kills[1:])]))
        return
    print(json.dumps([fork(adapter, given, output, kill) for kill in kills]))


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
