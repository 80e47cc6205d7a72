"""What is drawn for a row: a pure function of (seed, epoch, row id)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..seeds import row_seed


class Clock:
    """Tells collators the epoch: a callback sets it before the epoch's first batch.

    In shared memory, so that the workers of a data loader see it too, those that outlive an epoch included.

    >>> clock = Clock()
    >>> clock.epoch += 3
    >>> clock.epoch
    3
    """

    def __init__(self, epoch: int = 0) -> None:
        """At `epoch`."""
        self._epoch = torch.tensor(epoch).share_memory_()

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 0."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, number: int) -> None:
        """Sets it, for every process that has the clock."""
        self._epoch.fill_(number)


@dataclass(frozen=True)
class RowSeeds:
    """The seeds of a row in an epoch, one for each use; rows with an `epoch` of their own keep that one.

    Attributes:
        seed: Of the run.
        clock: Tells the epoch.

    >>> RowSeeds(1)({"row_id": 3}, "noise") == row_seed(1, 0, 3, use="noise")
    True
    """

    seed: int = 0
    clock: Clock = field(default_factory=Clock)

    def __call__(self, row: Mapping[str, Any], use: str) -> int:
        """The seed of `row` for one use."""
        return row_seed(self.seed, row.get("epoch", self.clock.epoch), row["row_id"], use=use)

    def of(self, rows: Sequence[Mapping[str, Any]]) -> Int[Tensor, " rows"]:
        """What the game draws the rows' randomness from."""
        return torch.tensor([self(row, "step") for row in rows])


def chosen_rows(seeds: Int[Tensor, " batch"], fraction: float) -> Bool[Tensor, " batch"]:
    """A share of rows, others in each epoch: seed / 2^63 < fraction, the same however rows are split into batches."""
    return seeds.double() / 2**63 < fraction
