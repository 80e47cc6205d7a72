"""Files that are whole or not there: what is cut off leaves what was there before."""

import hashlib

import pytest

from style_adapter.disk import digest, write_whole, written_whole


def test_a_file_takes_its_place_once_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "one")
    with written_whole(path, tmp_path / ".hidden") as part:
        part.write_text("two", "utf-8")
        assert path.read_text("utf-8") == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text("utf-8") == "two"
    assert digest(path) == hashlib.sha256(b"two").hexdigest()


def test_what_fails_in_between_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "one")
    with pytest.raises(RuntimeError, match="full"), written_whole(path) as part:  # noqa: PT012 - both are needed
        part.write_text("tw", "utf-8")
        raise RuntimeError("full")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text("utf-8") == "one"
