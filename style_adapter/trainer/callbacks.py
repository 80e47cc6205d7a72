"""What a run of the game always has around its steps."""

from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from ..arguments import StyleTrainingArguments
from ..game import StyleGame
from .gradients import GradientCheck


class _CommitPrototypes(TrainerCallback):
    """Moves the style prototypes once an optimizer step, on every process alike."""

    def __init__(self, game: StyleGame) -> None:
        self.game = game

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """To the model's device before the first text: a process without judged rows must join the others' sums."""
        self.game.prototypes.to(next(self.game.parameters()).device)

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After the step, so that all its batches saw the same prototypes."""
        self.game.prototypes.commit()


def run_callbacks(args: StyleTrainingArguments, game: StyleGame) -> list[TrainerCallback]:
    """What a run always has."""
    callbacks: list[TrainerCallback] = [_CommitPrototypes(game)] if game.discriminator is not None else []
    if not args.asks_deepspeed:  # which keeps gradients to itself
        callbacks.append(GradientCheck(game, args))
    if args.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience))
    return callbacks
