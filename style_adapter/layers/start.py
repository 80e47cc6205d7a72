"""Where the factors of a new adapter start."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..functional import orthogonal_factors, principal_factors


@torch.no_grad()
def start_factors(
    a: Tensor, b: Tensor, how: bool | str, *, base: nn.Module, base_weight: Callable[[], Tensor], scaling: float
) -> None:
    """Fills A and B of a new adapter on the layer `base`.

    True starts as LoRA does: A random and B = 0, on embeddings A = 0 and B normal. False draws both at random.
    "orthogonal" draws both such that B A = 0. "pissa" takes both from the base weight W [d_out, d_in]: s * B A is its
    best approximation of rank r (Eckart and Young 1936), as in PiSSA (Meng et al. 2024, arXiv 2404.02948); where that
    method changes the base weight, here gates of 0 hold the start at the frozen backbone, and what is learnt is how
    much of each principal direction a style adds or takes away.

    Args:
        a: A, filled in place.
        b: B, filled in place.
        how: `init_weights` of the config.
        base: The base layer.
        base_weight: Reads W, dequantised; called for "pissa" alone.
        scaling: s.

    Raises:
        ValueError: A start that needs a matrix on a layer that has none, or an odd rank for "orthogonal".
    """
    if a.device.type == "meta":
        return  # the values will be loaded
    table = isinstance(base, nn.Embedding)
    if how is True and table:
        nn.init.zeros_(a)
        nn.init.normal_(b)
    elif isinstance(how, bool):
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        nn.init.zeros_(b) if how else nn.init.kaiming_uniform_(b, a=math.sqrt(5))
    elif a.dim() != 2 or table:
        raise ValueError(
            f"init_weights={how!r} must be True or False for {type(base).__name__}; leave it out of target_modules, or "
            "set init_weights=True"
        )
    elif how == "orthogonal":
        values_a, values_b = orthogonal_factors(a.shape[0], a.shape[1], b.shape[0])
        a.copy_(values_a)
        b.copy_(values_b)
    else:
        weight = base_weight().float()
        values_a, values_b = principal_factors(weight.T if isinstance(base, Conv1D) else weight, a.shape[0])
        a.copy_(values_a)
        b.copy_(values_b / scaling)
