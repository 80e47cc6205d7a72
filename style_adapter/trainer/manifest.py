"""A checkpoint counts once it is whole: a list of its files, written last, says so."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..disk import digest, settle, write_whole

MANIFEST = "manifest.json"
UNVOUCHED = f"has no {MANIFEST}"
FORMAT_VERSION = 1
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


def write_manifest(folder: str | os.PathLike[str]) -> None:
    """Vouches for every file that is in `folder` now: name, size, SHA-256.

    The trainer calls it when all processes have written theirs. Call it yourself for a checkpoint that another tool
    wrote and that you know to be complete.
    """
    folder = Path(folder)
    files = {path.relative_to(folder).as_posix(): path for path in _files_of(folder)}
    for path in files.values():
        settle(path)
    entries = {name: {"size": path.stat().st_size, "sha256": digest(path)} for name, path in sorted(files.items())}
    listed = json.dumps({"format_version": FORMAT_VERSION, "files": entries}, indent=2)
    write_whole(folder / MANIFEST, listed + "\n")


def flaw_of(folder: str | os.PathLike[str], *, checksums: bool = True) -> str | None:
    """What keeps the checkpoint in `folder` from being whole; None for nothing.

    Args:
        folder: A checkpoint.
        checksums: Whether to read the files too, and not only their sizes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return "is no folder"
    if not (folder / MANIFEST).is_file():
        return UNVOUCHED
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        version, files = int(manifest["format_version"]), dict(manifest["files"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"has a {MANIFEST} that cannot be read"
    if version > FORMAT_VERSION:
        return f"has format_version={version}, which must be <= {FORMAT_VERSION}: update style_adapter"
    flaws = (_flaw_of_file(folder / name, name, entry, checksums=checksums) for name, entry in files.items())
    return next(filter(None, flaws), None)


def _flaw_of_file(path: Path, name: str, entry: dict[str, Any], *, checksums: bool) -> str | None:
    """What is wrong with one file."""
    if not path.is_file():
        return f"lacks {name}"
    if path.stat().st_size != entry["size"]:
        return f"has {name} with {path.stat().st_size} bytes instead of {entry['size']}"
    if checksums and digest(path) != entry["sha256"]:
        return f"has {name} with other contents than were written"
    return None


def newest_whole(run: str | os.PathLike[str]) -> tuple[str | None, dict[str, str]]:
    """The whole checkpoint of the most steps in a run's folder, and the flaws of those of more steps."""
    flaws: dict[str, str] = {}
    for folder in reversed(_checkpoints(run)):
        flaw = flaw_of(folder)
        if flaw is None:
            return str(folder), flaws
        flaws[folder.name] = flaw
    return None, flaws


def discard(folder: str | os.PathLike[str]) -> None:
    """Removes a checkpoint, its manifest first: cut off in between, it is no checkpoint any more."""
    (Path(folder) / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def rotate(run: str | os.PathLike[str], *, limit: int | None, keep: set[str]) -> None:
    """Leaves `limit` whole checkpoints in a run's folder, those written last, and none that is broken.

    Args:
        run: The folder.
        limit: None or 0 leaves all.
        keep: Checkpoints that stay whatever the limit is: the one just written, and the best.
    """
    if not limit or limit < 0:
        return
    kept = {Path(folder).resolve() for folder in keep if os.path.isdir(folder)}
    whole: list[Path] = []
    others: list[Path] = []
    for folder in _checkpoints(run):
        if folder.resolve() in kept:
            continue
        (whole if flaw_of(folder, checksums=False) is None else others).append(folder)
    whole.sort(key=lambda folder: (folder / MANIFEST).stat().st_mtime_ns)  # stable: equal times leave steps in order
    for folder in (*others, *whole[: len(whole) - max(0, limit - len(kept))]):
        discard(folder)


def _checkpoints(run: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a run's folder, whole or not, by the number of steps."""
    if not Path(run).is_dir():
        return []
    steps = {path: match for path in Path(run).iterdir() if (match := _NAME.fullmatch(path.name)) and path.is_dir()}
    return sorted(steps, key=lambda path: int(steps[path][1]))


def _files_of(folder: Path) -> Iterator[Path]:
    """The files of a checkpoint, in its subfolders too, without its manifest."""
    own = {folder / MANIFEST, folder / f"{MANIFEST}.part"}
    return (path for path in folder.rglob("*") if path.is_file() and path not in own)
