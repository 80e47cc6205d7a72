"""Processes that die at a chosen instant: what workers which are killed and taken up again share."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def die() -> None:
    """As a power cut would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


def counted(owner: Any, name: str, countdown: list[int]) -> None:
    """Makes `owner.name` kill the process once the countdown ends, after it has done its work."""
    work: Callable[..., Any] = getattr(owner, name)

    def then_count(*args: Any, **kwargs: Any) -> Any:
        done = work(*args, **kwargs)
        countdown[0] -= 1
        if countdown[0] == 0:
            die()
        return done

    setattr(owner, name, then_count)


def begun(work: Callable[..., None], *arguments: Any) -> int:
    """A process of its own that does this work and ends; its id."""
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


def status_of(child: int) -> int:
    """Its exit status, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
