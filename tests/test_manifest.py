"""Which checkpoints count: what is broken is passed over, refused, and never kept in place of a whole one."""

import json
import os
from pathlib import Path

import pytest

from style_adapter.trainer.manifest import MANIFEST, discard, flaw_of, newest_whole, rotate, write_manifest


def checkpoint(run: Path, step: int, *, whole: bool = True, age: int = 0) -> Path:
    """A checkpoint of two files, one of them in a subfolder, written `age` seconds ago."""
    folder = run / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(b"\1" * step)
    (folder / "inner" / "state").write_text("state", "utf-8")
    if whole:
        write_manifest(folder)
        when = (folder / MANIFEST).stat().st_mtime_ns - age * 10**9
        os.utime(folder / MANIFEST, ns=(when, when))
    return folder


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def cut(folder: Path) -> None:
    (folder / "weights").write_bytes(b"")


def spoil(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(folder.joinpath("weights").stat().st_size))


def rewrite(folder: Path, **entries: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    (folder / MANIFEST).write_text(json.dumps(manifest | entries), "utf-8")


BROKEN = {
    "has no manifest.json": lambda folder: (folder / MANIFEST).unlink(),
    "has a manifest.json that cannot be read": lambda folder: (folder / MANIFEST).write_text("{", "utf-8"),
    "has format_version=2, which must be <= 1: update style_adapter": lambda folder: rewrite(folder, format_version=2),
    "lacks inner/state": lambda folder: (folder / "inner" / "state").unlink(),
    "has weights with 0 bytes instead of 7": cut,
    "has weights with other contents than were written": spoil,
    "is no folder": discard,
}


@pytest.mark.parametrize("flaw", BROKEN)
def test_what_is_broken_is_named_and_what_was_written_is_whole(tmp_path, flaw):
    folder = checkpoint(tmp_path, 7)
    assert flaw_of(folder) is None
    BROKEN[flaw](folder)
    assert flaw_of(folder) == flaw
    assert (flaw_of(folder, checksums=False) is None) == ("contents" in flaw)


def test_a_file_that_was_added_later_does_no_harm(tmp_path):
    folder = checkpoint(tmp_path, 7)
    (folder / "note.txt").write_text("the good one", "utf-8")
    assert flaw_of(folder) is None


def test_the_newest_is_the_whole_one_of_the_most_steps(tmp_path):
    assert newest_whole(tmp_path / "nothing") == (None, {})
    for step in (9, 10, 100):
        checkpoint(tmp_path, step, age=step)
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_whole(tmp_path) == (str(tmp_path / "checkpoint-100"), {})
    spoil(tmp_path / "checkpoint-100")
    (tmp_path / "checkpoint-10" / MANIFEST).unlink()
    found, flaws = newest_whole(tmp_path)
    assert found == str(tmp_path / "checkpoint-9")
    assert list(flaws) == ["checkpoint-100", "checkpoint-10"]
    spoil(tmp_path / "checkpoint-9")
    assert newest_whole(tmp_path)[0] is None


def test_rotation_keeps_what_was_written_last_and_counts_no_broken_one(tmp_path):
    for step, age in ((1, 5), (2, 4), (3, 3), (4, 2), (900, 9)):  # the last one of another, older run
        checkpoint(tmp_path, step, age=age)
    cut(checkpoint(tmp_path, 5))
    newest = checkpoint(tmp_path, 6)
    rotate(tmp_path, limit=None, keep={str(newest)})
    assert len(names(tmp_path)) == 7
    rotate(tmp_path, limit=3, keep={str(newest)})
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-4", "checkpoint-6"]


def test_rotation_keeps_the_best_and_the_newest_whatever_the_limit(tmp_path):
    best, newest = checkpoint(tmp_path, 1, age=9), checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 3)
    rotate(tmp_path, limit=1, keep={str(newest), str(best), str(tmp_path / "checkpoint-77")})
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-5"]


def test_removal_that_is_cut_off_leaves_no_checkpoint(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path, 7)
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
    discard(folder)
    assert flaw_of(folder) == "has no manifest.json"
