"""A step whose gradients are not finite moves nothing."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..arguments import StyleTrainingArguments
from ..game import StyleGame
from .agreement import any_process
from .interruption import Interruption

RATES = {"adapter": "learning_rate", "discriminator": "discriminator_learning_rate or w_r1"}


class StepGuard(TrainerCallback):
    """Drops a step in which a side's gradient is not finite, on all processes alike; too many in a row end training.

    The optimizer finds no gradient at all, so that weights and moments stay as they are; what the step has added to the
    game's memory is forgotten. The norms are those before clipping, which would spread one NaN over its side. fp16's
    scaler drops steps by itself while it looks for its scale, and DeepSpeed keeps gradients to itself: there nothing is
    looked at. In the same exchange the processes learn whether one of them was asked to stop.
    """

    def __init__(self, game: StyleGame, args: StyleTrainingArguments, interruption: Interruption) -> None:
        """Of both sides of `game`."""
        self.game, self.interruption = game, interruption
        self.looks = not (args.fp16 or args.asks_deepspeed)
        self.norms: Mapping[str, Tensor | float | None] = {}
        """Norm of each side's gradient in this step, before clipping."""
        self.skipped = self.in_a_row = 0
        self.stop_reason: str | None = None

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Looks at the step once its gradients are complete."""
        sick = [side for side, norm in self.norms.items() if self.looks and norm is not None and not is_finite(norm)]
        skip, self.interruption.agreed = any_process([bool(sick), self.interruption.asked], args.device)
        if not skip:
            self.in_a_row = 0
            return
        self.skipped += 1
        self.in_a_row += 1
        for parameter in self.game.parameters():
            parameter.grad = None
        self.game.memory.forget_step()
        most = args.max_skipped_steps  # type: ignore[attr-defined]  # a StyleTrainingArguments
        if self.in_a_row >= most:
            self.stop_reason = reason_of(sick, most)
            control.should_training_stop = True


def is_finite(norm: Tensor | float) -> bool:
    """Neither infinite nor NaN."""
    return math.isfinite(float(norm))


def reason_of(sick: list[str], steps: int) -> str:
    """Why training stops, and what to change.

    >>> reason_of(["adapter"], 3)
    'not finite: the gradients of the adapter were NaN or infinite in 3 steps in a row; lower learning_rate, ...'
    """
    sides, rates = " and ".join(sick), " and ".join(RATES[side] for side in sick)
    return (
        f"not finite: the gradients of the {sides} were NaN or infinite in {steps} steps in a row; lower {rates}, or "
        "train without bf16 (max_skipped_steps)"
    )
