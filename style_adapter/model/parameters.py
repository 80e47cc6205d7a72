"""Parameters as targets: what must hold before they are adapted, and what is easily taken for a module."""

import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn

from .._peft import stacked_experts


def check_parameters(config: Any, others: Iterable[Any]) -> None:
    """Refuses `target_parameters` beside options that have no meaning for them, and other ones than in `others`.

    Raises:
        ValueError: Dropout, a start that is made from a matrix, or parameters that another adapter has not: what a
            tensor belongs to is told by how the wrappers of a module lie in one another.
    """
    if not config.target_parameters:
        return
    if config.dropout or isinstance(config.init_weights, str):
        raise ValueError(
            f"dropout={config.dropout} and init_weights={config.init_weights!r} must be 0 and True or False with "
            "target_parameters: what is added to a parameter has no input to drop, and a stack no directions; leave "
            "these options out, or adapt modules with target_modules"
        )
    for other in others:
        ours, theirs = set(config.target_parameters), set(getattr(other, "target_parameters", None) or ())
        if theirs and ours != theirs:
            raise ValueError(
                f"target_parameters={sorted(ours)} must be those of the model's other adapters, {sorted(theirs)}; "
                "name the same, or none"
            )


def warn_of_stacked_experts(model: nn.Module, config: Any) -> None:
    """Warns of projections of experts that `target_modules` names, where the model keeps them in stacked parameters.

    PEFT's LoRA adapts the parameters instead. Here that is asked for: a batch then has one style for all rows.
    """
    targets, stacks = config.target_modules, stacked_experts(model)
    if isinstance(targets, str) or not stacks:
        return
    named = {target: stacks[end] for target in targets or () if (end := target.rpartition(".")[2]) in stacks}
    adapted = config.target_parameters or ()
    if missing := sorted({stack for stack in named.values() if not any(p.endswith(stack) for p in adapted)}):
        warnings.warn(
            f"target_modules={sorted(named)} are not modules of the experts in {type(model).__name__}, whose "
            f"projections are stacked in parameters and stay as they are; to adapt them too set target_parameters="
            f"{missing}, with one style a batch",
            stacklevel=2,
        )
