"""What the processes of a run decide together."""

from collections.abc import Sequence

import torch
import torch.distributed as dist


def any_process(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Whether each flag is set on any process; every process must call it at the same place.

    >>> any_process([True, False], torch.device("cpu"))
    [True, False]
    """
    if not (dist.is_available() and dist.is_initialized()):
        return list(flags)
    found = torch.tensor(flags, dtype=torch.uint8, device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in found.tolist()]
