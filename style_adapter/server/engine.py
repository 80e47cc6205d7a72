"""The one thread that owns the model: rows wait for one another a few milliseconds and are written together."""

import copy
import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from ..inference import StylePipeline
from .batch import write_batch
from .errors import ApiError
from .metrics import Metrics
from .options import ServerOptions
from .rows import News, Row

_LOG = logging.getLogger(__name__)


class Engine:
    """A queue of rows and the thread that writes them, the earliest first.

    Args:
        pipe: Model, tokenizer and task; the thread takes a copy of the tokenizer, which is not safe in two threads.
        options: How rows are batched, and how many may wait.
    """

    def __init__(self, pipe: StylePipeline, options: ServerOptions) -> None:
        """Not started yet."""
        self.options, self.metrics = options, Metrics(lambda: len(self._waiting))
        self.context = context_of(pipe)
        self._pipe = replace(pipe, tokenizer=copy.deepcopy(pipe.tokenizer))
        self._waiting: list[Row] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="style-adapter-engine", daemon=True)

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def stop(self) -> None:
        """Ends when all that waits is written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it writes."""
        return self._thread.is_alive()

    def submit(self, rows: Sequence[Row]) -> None:
        """Puts rows into the queue, all of them or none.

        Raises:
            ApiError: 429, the queue is full.
        """
        for row in rows:
            if row.given is not None:
                row.tell(row.place, News(row.given, "stop"))
        new = [row for row in rows if row.given is None]
        with self._changed:
            waiting = [row for row in self._waiting if not row.dropped]
            if len(waiting) + len(new) > self.options.max_queue:
                raise ApiError(
                    429,
                    f"{len(waiting)} texts wait and at most max_queue={self.options.max_queue} may; try again later",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                )
            self._waiting = [*waiting, *new]
            self._changed.notify_all()

    def _work(self) -> None:
        """Writes one batch after another."""
        while batch := self._next():
            self.metrics.batch(len(batch))
            try:
                self.metrics.written(write_batch(self._pipe, batch))
            except Exception:
                _LOG.exception("a batch of %d texts failed", len(batch))
                for row in batch:
                    row.tell(row.place, News(error="the text could not be written; the server's log says why"))

    def _next(self) -> list[Row]:
        """The next batch, once it is full or its first row has waited long enough; empty at the end."""
        with self._changed:
            while True:
                self._waiting = [row for row in self._waiting if not row.dropped]
                if not self._waiting:
                    if self._closing:
                        return []
                    self._changed.wait()
                    continue
                left = self._waiting[0].arrived + self.options.batch_wait_ms / 1000 - time.monotonic()
                if left <= 0 or self._closing or len(self._waiting) >= self.options.batch_size:
                    return self._take()
                self._changed.wait(left)

    def _take(self) -> list[Row]:
        """Takes the first row out of the queue, and those behind it that can be written with it."""
        batch: list[Row] = []
        for row in self._waiting:
            if len(batch) == self.options.batch_size:
                break
            if not batch or (row.strength == batch[0].strength and self._fits([*batch, row])):
                batch.append(row)
        taken = {id(row) for row in batch}
        self._waiting = [row for row in self._waiting if id(row) not in taken]
        return batch

    def _fits(self, rows: Sequence[Row]) -> bool:
        """Whether the longest prompt and the longest text fit into the context one after the other.

        A row that has ended goes on with padding as long as the batch: learnt positions would run out.
        """
        return max(row.most for row in rows) <= self.left(max(len(row.prompt) for row in rows))

    def left(self, prompt: int) -> int:
        """How many tokens the context leaves behind a prompt of so many; an encoder-decoder counts both apart."""
        if self.context is None:
            return sys.maxsize
        if self._pipe.model.config.is_encoder_decoder:
            return self.context if prompt <= self.context else 0
        return self.context - prompt


def context_of(pipe: StylePipeline) -> int | None:
    """How many tokens the model can read; None where nothing bounds them."""
    config = pipe.model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None)
