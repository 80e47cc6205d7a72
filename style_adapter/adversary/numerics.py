"""What the parts of the adversary share: full precision under autocast, sizes that make sense."""

import torch
from torch import Tensor


def no_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which autocast lowers nothing on this tensor's device."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def check_positive(**sizes: int) -> None:
    """Refuse a size below 1, by name."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be >= 1; give the {name} of the backbone or the style bank")
