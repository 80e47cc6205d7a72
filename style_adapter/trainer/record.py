"""What the game did since the last log line."""

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..game import DISCRIMINATOR_TERMS, GENERATOR_TERMS

TERMS = (*GENERATOR_TERMS, *DISCRIMINATOR_TERMS)
RIGHT_SIGN = {"real": 1, "fake": -1}  # of D's score
_SUMS = ("steps", *TERMS, *(f"seen_{t}" for t in TERMS), *(f"{n}_{s}" for n in ("right", "judged") for s in RIGHT_SIGN))


class GameRecord:
    """Sums over batches and processes, given out as means over optimizer steps.

    A batch's part of a term is divided by the counts of its whole step already, on all processes: the sum of the parts
    is the step's mean. Sums stay on their device until they are asked for.

    >>> record = GameRecord()
    >>> record.add({"ce": torch.tensor(1.0)}, {"real": torch.tensor([2.0, -1.0])}, steps=0.5)
    >>> record.add({"ce": torch.tensor(2.0)}, {}, steps=0.5)
    >>> record.drain(lambda sums: sums, processes=1)
    {'loss_ce': 3.0, 'd_accuracy_real': 0.5}
    """

    def __init__(self) -> None:
        """Empty."""
        self._sums: dict[str, Tensor | float] = defaultdict(float)

    def add(
        self, means: Mapping[str, Float[Tensor, ""]], scores: Mapping[str, Float[Tensor, " _judged"]], *, steps: float
    ) -> None:
        """Adds a batch: its part of each term, D's scores by name, and its share of an optimizer step."""
        self._sums["steps"] += steps
        for term, mean in means.items():
            self._sums[term] += mean.detach()
            self._sums[f"seen_{term}"] += 1
        for name, given in scores.items():
            self._sums[f"right_{name}"] += (given * RIGHT_SIGN[name] > 0).sum()
            self._sums[f"judged_{name}"] += given.numel()

    def drain(
        self, reduce: Callable[[Float[Tensor, " sums"]], Float[Tensor, " sums"]], *, processes: int
    ) -> dict[str, float]:
        """`loss_<term>`, the mean of each term a step, and D's accuracies; the record is empty afterwards.

        Args:
            reduce: Sums a tensor over all processes.
            processes: How many there are: each counts the same steps.
        """
        own = torch.tensor([float(self._sums[name]) for name in _SUMS], dtype=torch.float64)
        sums = dict(zip(_SUMS, reduce(own).tolist(), strict=True))
        self._sums.clear()
        steps = sums["steps"] / processes
        losses = {f"loss_{term}": sums[term] / steps for term in TERMS if sums[f"seen_{term}"]}
        return losses | {
            f"d_accuracy_{name}": sums[f"right_{name}"] / judged
            for name in RIGHT_SIGN
            if (judged := sums[f"judged_{name}"])
        }
