"""Files that are whole, or not there at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path, part: Path | None = None) -> Iterator[Path]:
    """Where to write what takes the place of `path` once the block has ended well and it is on the disk.

    Args:
        path: The file.
        part: Where it is until then, in the same folder; `path` with ".part" behind it if left out.
    """
    part = part or path.with_name(f"{path.name}.part")
    try:
        yield part
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    settle(part)
    os.replace(part, path)


def write_whole(path: Path, text: str) -> None:
    """Writes a file that, cut off in between, is what it was before, or is not there."""
    with written_whole(path) as part:
        part.write_text(text, "utf-8")


def settle(path: Path) -> None:
    """Waits until the file is on the disk: what vouches for it must not outlive it in a power cut."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
