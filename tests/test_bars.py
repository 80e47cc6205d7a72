"""Bars over long work: seen on a terminal once it takes long, by one process, and nowhere else."""

import io
import sys
import time

import pytest

from style_adapter import bars

BATCHES = [[1, 2], [3]]


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch, stream: io.StringIO) -> str:
    """What stands on `stream` once the batches have passed, each taking a while."""
    monkeypatch.setattr(sys, "stderr", stream)
    passed = []
    for batch in bars.with_bar(BATCHES, "counting", 3):
        passed.append(batch)
        time.sleep(0.15)
    assert passed == BATCHES
    return stream.getvalue()


def test_a_terminal_is_told_how_many_of_how_many_are_done_and_is_clean_again(monkeypatch):
    monkeypatch.setattr(bars, "PATIENCE", 0.05)
    said = shown(monkeypatch, Terminal())
    assert "counting" in said
    assert "2/3" in said
    assert not said.rpartition("\r")[0].rpartition("\r")[2].strip()


def test_what_was_done_before_is_counted(monkeypatch):
    monkeypatch.setattr(bars, "PATIENCE", 0.05)
    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in bars.with_bar(BATCHES, "counting", 1003, done=1000):
        time.sleep(0.15)
    assert "1002/1003" in sys.stderr.getvalue()


@pytest.mark.parametrize("why", ["short work", "no terminal", "another process"])
def test_nothing_is_said_otherwise(monkeypatch, why):
    monkeypatch.setattr(bars, "PATIENCE", 10.0 if why == "short work" else 0.05)
    if why == "another process":
        monkeypatch.setenv("LOCAL_RANK", "1")
    assert shown(monkeypatch, io.StringIO() if why == "no terminal" else Terminal()) == ""
