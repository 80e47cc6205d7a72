"""Gradient checkpointing runs a block again in the backward pass: it must see the styles of its first run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..style import StyleContext


class CarriedCheckpoint:
    """A checkpointing function whose recomputation sees the codes of the forward, not those of the backward."""

    def __init__(self, checkpoint: Callable[..., Any], context: StyleContext) -> None:
        """Around `checkpoint`, for the model that shares `context`."""
        self.checkpoint, self.context = checkpoint, context

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Checkpoints `function` together with the codes now in force."""
        if torch.compiler.is_compiling():  # the codes are inputs of the graph: what recomputes has them
            return self.checkpoint(function, *args, **kwargs)
        in_force = self.context.in_force()

        def recomputable(*inner_args: Any, **inner_kwargs: Any) -> Any:
            with self.context.only(in_force):
                return function(*inner_args, **inner_kwargs)

        return self.checkpoint(recomputable, *args, **kwargs)


def carry_codes(model: nn.Module, context: StyleContext) -> None:
    """Wraps each block's checkpointing function; at each forward, since Trainer sets it anew inside `train()`."""
    for module in model.modules():
        function = module.__dict__.get("_gradient_checkpointing_func")
        if function is not None and not isinstance(function, CarriedCheckpoint):
            module.__dict__["_gradient_checkpointing_func"] = CarriedCheckpoint(function, context)


def drop_codes(model: nn.Module) -> None:
    """Gives each block its own checkpointing function back."""
    for module in model.modules():
        function = module.__dict__.get("_gradient_checkpointing_func")
        if isinstance(function, CarriedCheckpoint):
            module.__dict__["_gradient_checkpointing_func"] = function.checkpoint
