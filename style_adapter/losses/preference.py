"""The term of preferences: of two texts the better one should be the likelier one."""

import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float
from torch import Tensor

from .precision import widened


def preference_loss(
    chosen: Float[Tensor, " rows"], rejected: Float[Tensor, " rows"], *, beta: float
) -> Float[Tensor, " rows"]:
    """L = -log sigmoid(beta * (log p(y_w | x) - log p(y_l | x))), one value a row.

    Contrastive preference optimization (Xu et al. 2024, arXiv 2401.08417, eq. 5), whose other term is the likelihood
    of y_w: DPO's loss (Rafailov et al. 2023, arXiv 2305.18290) with a uniform reference, so no second model is read.

    Args:
        chosen: log p(y_w | x), summed over tokens.
        rejected: log p(y_l | x).
        beta: How soon a difference is enough, above 0.

    >>> import torch
    >>> preference_loss(torch.tensor([-3.0]), torch.tensor([-3.0]), beta=0.1).exp()
    tensor([2.])
    """
    return -F.logsigmoid(beta * (widened(chosen) - widened(rejected)))
