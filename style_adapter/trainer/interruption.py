"""Ctrl-C and SIGTERM: the first is a wish that the run fulfils between two steps, the second is an order."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

DEFAULTS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
ECHO = 1.0  # seconds in which a launcher may pass the same Ctrl-C on once more


class Interruption:
    """Notes the first signal that asks to stop; whoever runs the steps looks at `asked`.

    A handler that someone else has installed, or a signal that is ignored as under nohup, is left alone, and so is
    every thread but the main one, which alone may have handlers. A process that is forked meanwhile, such as a data
    worker, leaves Ctrl-C to the main process.
    """

    def __init__(self) -> None:
        """Nobody has asked."""
        self.signal: signal.Signals | None = None
        self.agreed = False
        """Whether all processes know that one was asked."""
        self._since, self._aloud = 0.0, True
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal is not None

    @contextmanager
    def listening(self, *, aloud: bool = True) -> Iterator[None]:
        """Inside the block a first signal is noted, `aloud` or not; what is not fulfilled by its end is delivered."""
        self._aloud = aloud
        self.signal, self.agreed, self._process = None, False, os.getpid()
        in_main_thread = threading.current_thread() is threading.main_thread()
        free = [s for s, default in DEFAULTS.items() if in_main_thread and signal.getsignal(s) is default]
        self._previous = {s: signal.signal(s, self._note) for s in free}
        try:
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
        if self.signal is not None:
            signal.raise_signal(self.signal)

    def leave(self, message: str) -> NoReturn:
        """Ends the run as the signal itself would have: KeyboardInterrupt for Ctrl-C, exit status 143 for SIGTERM."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """The handler: the first time a wish, the second time what the signal does by default."""
        if os.getpid() != self._process:
            if number == signal.SIGTERM:
                self._deliver(number)
        elif self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
            text = f"\n{self.signal.name}: stopping after this step, with a checkpoint; once more stops at once\n"
            if self._aloud:  # os.write: print must not be called again while it is at work
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
        elif time.monotonic() - self._since > ECHO:
            self._deliver(number)

    def _deliver(self, number: int) -> None:
        """Gives the signal to the handler that was there before."""
        signal.signal(number, self._previous[number])
        signal.raise_signal(number)
