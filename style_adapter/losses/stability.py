"""What keeps a discriminator smooth: gradient penalties R1 and R2, and instance noise."""

import torch
from jaxtyping import Float
from torch import Tensor

from .precision import widened


def gradient_penalty(
    scores: Float[Tensor, " batch"], features: Float[Tensor, "batch seq dim"]
) -> Float[Tensor, " batch"]:
    """R_b = || d scores_b / d features_b ||^2: R1 on real rows, R2 on fake ones, without the factor gamma / 2.

    Mescheder et al. 2018 (arXiv 1801.04406), eq. 9 (R1) and eq. 10 (R2). Differentiable in the weights
    behind `scores`, each of which may depend on its own row of `features` only. Give features in fp32.
    """
    if not features.requires_grad:
        raise ValueError(
            "features.requires_grad=False must be True for a gradient penalty; "
            "score features.detach().requires_grad_() and pass that same tensor"
        )
    # As no score reads another row, the gradient of the sum holds each row's own gradient.
    (slope,) = torch.autograd.grad(scores.sum(), features, create_graph=True)
    return widened(slope).flatten(1).pow(2).sum(-1)


def instance_noise(
    features: Float[Tensor, "batch seq dim"], noise: Float[Tensor, "batch seq dim"], *, std: float
) -> Float[Tensor, "batch seq dim"]:
    """x~_t = x_t + std * rms(x_t) * e_t: real and fake blurred alike, so that D cannot part them at once.

    `e` = standard normal `noise`, drawn anew for each side and step; `rms` = root of the mean square over the
    features of one position, without gradient. Soenderby et al. 2016 (arXiv 1610.04490), with the standard deviation
    in units of the layer norm that D begins with. Falls to 0 over the training, where it is to vanish.
    """
    if std < 0:
        raise ValueError(f"std={std} must be >= 0; 0.1 is a start, 0 turns it off")
    scale = features.detach().pow(2).mean(-1, keepdim=True).sqrt()
    return features + std * scale * noise
