"""How hard each term pulls: the norm of its own gradient."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..game import DISCRIMINATOR_TERMS, StyleGame
from .record import TERMS
from .sides import sides_of


class TermGradients:
    """||d(w_k L_k) / d theta||_2 of each term k over one step, theta the adapter, or D's weights for D's terms.

    Taken from the graph of the step itself, which keeps it for its own backward; `.grad` is not touched. Parts of an
    accumulated batch are added up before the norm is taken, and so are those of all processes.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self._step = -1
        self._sums: dict[str, Float[Tensor, " parameters"]] = {}

    def add(self, game: StyleGame, terms: Mapping[str, Float[Tensor, ""]], *, step: int) -> None:
        """Adds the gradient of each weighted term of one batch of `step`; a new step begins anew."""
        if step != self._step:
            self._step, self._sums = step, {}
        adapter, judge = sides_of(game)
        for term, loss in terms.items():
            side = judge if term in DISCRIMINATOR_TERMS else adapter
            if not side or not loss.requires_grad:
                continue
            grads = torch.autograd.grad(loss, side, retain_graph=True, allow_unused=True, materialize_grads=True)
            flat = torch.cat([grad.flatten().float() for grad in grads])
            self._sums[term] = self._sums[term] + flat if term in self._sums else flat

    def drain(self, game: StyleGame, reduce: Callable[[Tensor], Tensor], *, device: torch.device) -> dict[str, float]:
        """`grad_norm_<term>` of the terms that any process has seen; empty afterwards.

        Args:
            game: Both sides.
            reduce: Sums a tensor over all processes; each of them must call this at the same step.
            device: Where to.
        """
        seen = reduce(torch.tensor([float(term in self._sums) for term in TERMS], device=device)).tolist()
        norms = {}
        for term, processes in zip(TERMS, seen, strict=True):
            if processes:  # where one process alone has judged rows, the others join with zeros
                norms[f"grad_norm_{term}"] = float(reduce(self._whole(game, term, device)).norm())
        self._sums = {}
        return norms

    def _whole(self, game: StyleGame, term: str, device: torch.device) -> Float[Tensor, " parameters"]:
        """This process's sum of one term's gradient, zero where it had none."""
        adapter, judge = sides_of(game)
        size = sum(parameter.numel() for parameter in (judge if term in DISCRIMINATOR_TERMS else adapter))
        return self._sums.get(term, torch.zeros(size, device=device))
