"""Gradient checkpointing runs a block again in the backward pass: it must see the styles of its first run."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..style import InForce, StyleContext
from .finding import find_adapted

# Where a module keeps the function that checkpoints it: transformers' blocks, and torch's CheckpointWrapper
PLACES = ("_gradient_checkpointing_func", "checkpoint_fn")
Learned = list[tuple[str, str, Tensor]]  # adapter, field of its code, a tensor with a gradient


class CarriedCheckpoint:
    """A checkpointing function whose recomputation sees the codes of the forward, not those of the backward."""

    def __init__(self, checkpoint: Callable[..., Any], context: StyleContext) -> None:
        """Around `checkpoint`, for the model that shares `context`."""
        self.checkpoint, self.context = checkpoint, context

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Checkpoints `function` together with the codes now in force."""
        compiling = torch.compiler.is_compiling()
        in_force = self.context.shown.now if compiling else self.context.in_force()
        learned = [] if compiling else learned_tensors(in_force)
        recomputable = partial(self._run, function, in_force, learned)
        # a reentrant recomputation cuts the graph at the arguments: whatever else has a gradient would be walked
        # through once a block, which its freed buffers refuse
        return self.checkpoint(recomputable, *args, *(tensor for *_, tensor in learned), **kwargs)

    def _run(self, function: Callable[..., Any], in_force: InForce, learned: Learned, *args: Any, **kwargs: Any) -> Any:
        """Runs the block, at first and again: the last arguments are the tensors that `learned` names."""
        if torch.compiler.is_compiling():  # the codes are inputs of the graph: what recomputes has them
            return function(*args, **kwargs)
        count = len(args) - len(learned)
        with self.context.only(with_tensors(in_force, learned, args[count:])):
            return function(*args[:count], **kwargs)


def learned_tensors(in_force: InForce) -> Learned:
    """The tensors of the codes in force that something outside the model learns, such as an encoder's features."""
    return [
        (adapter, name, tensor)
        for adapter, code in in_force.codes.items()
        if code is not None
        for name, tensor in vars(code).items()
        if isinstance(tensor, Tensor) and tensor.requires_grad
    ]


def with_tensors(in_force: InForce, learned: Learned, tensors: tuple[Tensor, ...]) -> InForce:
    """`in_force` with `tensors` in the places of `learned`."""
    codes = dict(in_force.codes)
    for (adapter, name, _), tensor in zip(learned, tensors, strict=True):
        codes[adapter] = replace(codes[adapter], **{name: tensor})  # type: ignore[type-var]  # None has no tensors
    return replace(in_force, codes=codes) if learned else in_force


def carry_codes(model: nn.Module) -> None:
    """Wraps each block's checkpointing function; at each forward, since Trainer sets it anew inside `train()`."""
    for holder, context in find_adapted(model).holders:
        attributes = vars(holder())
        for place in PLACES:
            function = attributes.get(place)
            if function is not None and not isinstance(function, CarriedCheckpoint):
                attributes[place] = CarriedCheckpoint(function, context)


def drop_codes(model: nn.Module) -> None:
    """Gives each block its own checkpointing function back."""
    for module in model.modules():
        for place in PLACES:
            function = module.__dict__.get(place)
            if isinstance(function, CarriedCheckpoint):
                module.__dict__[place] = function.checkpoint
