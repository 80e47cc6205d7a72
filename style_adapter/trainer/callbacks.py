"""What a run of the game always has around its steps, and what it refuses to start with."""

from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from ..arguments import StyleTrainingArguments
from ..game import StyleGame


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
    if args.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience))
    return callbacks


def check_processes(args: StyleTrainingArguments) -> None:
    """`accelerate launch --cpu --num_processes 2` silently starts one process: refuse where more were asked for.

    Raises:
        ValueError: Another number of processes than `expected_processes`, or one process for several GPUs.
    """
    expected = args.expected_processes
    if expected is not None and expected != args.world_size:
        raise ValueError(
            f"expected_processes={expected} must equal the number of processes, {args.world_size}; on CPU start "
            f"with: accelerate launch --multi_gpu --num_processes {expected} and use_cpu: true, ddp_backend: gloo"
        )
    if args.n_gpu > 1:  # Trainer would split the batch over threads, which cannot gather losses by name
        raise ValueError(
            f"n_gpu={args.n_gpu} must be 1 a process; start one for each with accelerate launch, or set "
            "CUDA_VISIBLE_DEVICES to one of them"
        )
