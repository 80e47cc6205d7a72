"""A learning rate's course, for each side its own."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from ..arguments import StyleTrainingArguments


def side_schedules(args: StyleTrainingArguments, optimizer: Optimizer, steps: int) -> LambdaLR:
    """rate(t) = rate * f(t), with one f for the adapter's groups and another for the discriminator's, the last group.

    Args:
        args: Both sides' schedules.
        optimizer: Its groups as `parameter_groups` orders them.
        steps: Optimizer steps of the whole run.
    """
    adapter = _factor(args.lr_scheduler_type, args.learning_rate, args, steps, args.lr_scheduler_kwargs)
    own = args.discriminator_lr_scheduler_type or args.lr_scheduler_type
    judge = _factor(own, args.discriminator_learning_rate, args, steps, None)
    return LambdaLR(optimizer, [adapter] * (len(optimizer.param_groups) - 1) + [judge])


def _factor(name: str, rate: float, args: StyleTrainingArguments, steps: int, options: Any) -> Callable[[int], float]:
    """f of transformers' schedule `name`, some of which depend on the rate that they start from."""
    like = torch.optim.SGD([torch.zeros(1)], lr=rate)
    return get_scheduler(name, like, args.get_warmup_steps(steps), steps, options).lr_lambdas[0]
