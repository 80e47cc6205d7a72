"""The precision that losses are computed in."""

import torch
from jaxtyping import Float
from torch import Tensor


def widened(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same values in fp32 at least: half precision goes up, fp64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
