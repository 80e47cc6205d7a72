"""A run's own check that what it trains does learn."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..arguments import StyleTrainingArguments
from ..game import StyleGame
from .sides import sides_of

# The bias of D's last layer adds to real and fake scores alike: in these games its gradient is or may be zero.
BALANCED = {"relativistic": ("discriminator.realness.bias",), "hinge": ("discriminator.realness.bias",)}


class GradientCheck(TrainerCallback):
    """Warns once of trainable tensors that get no gradient: they are cut off from the loss, and would stay as they are.

    The adapter is looked at in the first step that follows a move: B starts at 0, which makes the gradients of A and
    of the gates 0 in the very first backward, and they stay 0 while a warm-up keeps the rate at 0. The discriminator
    is looked at in the first step that gives it any gradient. Whole tensors count, not rows: styles that a batch does
    not hold are no mistake.
    """

    def __init__(self, game: StyleGame, args: StyleTrainingArguments) -> None:
        """Watches the sides of `game`; nothing where no term has a weight."""
        self.game, self.args = game, args
        self.moved = False
        self.certain = min(args.w_ce, args.w_rec) > 0  # the likelihood reaches the adapter in every step it is taught
        self.reached = self.certain
        self.start = args.adversary_start
        self.allowed = BALANCED.get(args.game, ())
        self.waiting = ["adapter"] if self.certain or args.plays else []
        if game.discriminator is not None:
            self.waiting.append("discriminator")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Looks at each side once, all of its gradients in one reduction."""
        if self.waiting and not self.moved and not self.certain:
            self.reached = any(have_gradient(sides_of(self.game)[0]))
        for side in tuple(self.waiting):
            taught = self.args.teaches_at(state.global_step)
            due = self.moved and taught if side == "adapter" else state.global_step >= self.start
            if due and self._look(side, warn=state.is_world_process_zero):
                self.waiting.remove(side)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Notes the first step that moves the adapter."""
        if self.waiting and not self.moved:
            optimizer = kwargs["optimizer"]
            skipped = getattr(optimizer, "step_was_skipped", False)  # fp16's first scales overflow
            # The adapter rests in steps of the discriminator alone, and in steps that are dropped.
            taken = not skipped and any(p.grad is not None for p in sides_of(self.game)[0])
            self.moved = self.reached and taken and optimizer.param_groups[0]["lr"] > 0

    def _look(self, side: str, *, warn: bool) -> bool:
        """Whether the side had any gradient to look at; warns of its tensors that had none."""
        adapter, judge = sides_of(self.game)
        parameters = adapter if side == "adapter" else judge
        reached = have_gradient(parameters)
        if not any(reached) and not (side == "adapter" and self.certain):
            return False  # no judged row yet
        missing = {id(p) for p, found in zip(parameters, reached, strict=True) if not found}
        names = [name for name, parameter in self.game.named_parameters() if id(parameter) in missing]
        cut_off = [name for name in names if name not in self.allowed]
        if cut_off and warn:
            warnings.warn(message_of(cut_off, len(parameters)), stacklevel=2)
        return True


def have_gradient(parameters: Sequence[nn.Parameter]) -> list[bool]:
    """Whether each tensor has a gradient that is not zero throughout, on any process: a shard alone may be zero."""
    if not parameters:
        return []
    device = parameters[0].device
    found = torch.stack([_reached(parameter).to(device) for parameter in parameters])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in found.tolist()]


def _reached(parameter: nn.Parameter) -> Tensor:
    """1 where this process's part of the gradient is not zero throughout, 0 where it is, or where there is none."""
    grad = parameter.grad
    if isinstance(grad, DTensor):
        grad = grad.to_local()
    return torch.zeros((), dtype=torch.uint8) if grad is None else grad.count_nonzero().clamp(max=1).to(torch.uint8)


def message_of(names: Sequence[str], count: int) -> str:
    """The tensors without a gradient, those of all layers in one line, and what to do."""
    groups = Counter(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names)
    listed = "\n".join(f"  {number} x {name}" for name, number in groups.items())
    return (
        f"{len(names)} of {count} trainable tensors get no gradient and will not learn:\n{listed}\n"
        "Look for what cuts them off from the loss, or leave their layers out of target_modules."
    )
