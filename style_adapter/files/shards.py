"""One shard after another: read, rewritten, written."""

from functools import cached_property

import torch

from .adapters import Rewriter, read_bank, style_of
from .job import Job
from .ledger import Entry, Ledger, place
from .parts import WRITERS
from .rows import values_of, with_texts
from .sources import open_source
from .survey import Cells, Source


class ShardWriter:
    """Makes the files of shards: the input is opened once, the adapter loaded once, both at the first shard.

    Args:
        job: What to do.
        ledger: The run, begun.
        device: Where the model runs.
    """

    def __init__(self, job: Job, ledger: Ledger, device: torch.device) -> None:
        """Nothing is opened or loaded yet."""
        self.job, self.ledger = job, ledger
        self.rewriter = Rewriter(job, device)

    @cached_property
    def source(self) -> Source:
        """The input."""
        return open_source(self.job)

    @cached_property
    def cells(self) -> Cells:
        """The reader of texts and styles."""
        return Cells(self.job, read_bank(self.job))

    def close(self) -> None:
        """Closes the input, if it was opened."""
        if "source" in vars(self):
            self.source.close()

    def make(self, number: int) -> Entry | None:
        """Writes the file of a shard, whole; None for a shard behind the last row."""
        span = self.ledger.rows_of(number)
        rows = self.source.rows(span, self.ledger.survey)
        if not len(rows):
            return None
        texts = values_of(rows, self.job.column)
        given = [None] * len(texts) if self.job.style_column is None else values_of(rows, self.job.style_column)
        for row, text, style in zip(span, texts, given, strict=False):
            self.cells.check(row, text, style)
        styles = style_of(self.job, self.cells.bank) or [
            self.cells.style(row, cell) for row, cell in zip(span, given, strict=False)
        ]
        rewritten = with_texts(rows, self.job.output_column, self.rewriter(texts, styles, span))
        write, column, survey = WRITERS[self.ledger.options["format"]], self.job.output_column, self.ledger.survey
        path = self.job.output / self.ledger.name_of(number)
        return place(path, lambda part: write(rewritten, part, column, survey), len(rows))
