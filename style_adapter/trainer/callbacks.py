"""What a run of the game always has around its steps."""

from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState

from ..arguments import StyleTrainingArguments
from ..data import Clock
from ..game import StyleGame
from .gradients import GradientCheck
from .sides import sides_of


class _CommitMemory(TrainerCallback):
    """Moves what the game remembers once an optimizer step, on every process alike."""

    def __init__(self, game: StyleGame) -> None:
        self.game = game

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """To the model's device before the first text: a process without judged rows must join the others' sums."""
        self.game.memory.to(next(self.game.parameters()).device)

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After the step, so that all its batches saw the same memory."""
        self.game.memory.commit()


class _SetClock(TrainerCallback):
    """Tells the collator the epoch, before the first batch of it is made."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Whole epochs done; a resumed run begins inside one."""
        self.clock.epoch = int(state.epoch or 0)


class _RestAdapter(TrainerCallback):
    """Leaves the adapter as it is in steps that train the discriminator alone: no momentum, no decay."""

    def __init__(self, game: StyleGame, args: StyleTrainingArguments) -> None:
        self.game, self.options = game, args

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Its gradients are zero in such a step, and an optimizer passes over what has none."""
        if not self.options.teaches_at(state.global_step):
            for parameter in sides_of(self.game)[0]:
                parameter.grad = None


def run_callbacks(args: StyleTrainingArguments, game: StyleGame, clock: Clock) -> list[TrainerCallback]:
    """What a run always has."""
    callbacks: list[TrainerCallback] = [_SetClock(clock)]
    if game.discriminator is not None:
        callbacks += [_CommitMemory(game), _RestAdapter(game, args)]
    if not args.asks_deepspeed:  # which keeps gradients to itself
        callbacks.append(GradientCheck(game, args))
    if args.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience))
    return callbacks
