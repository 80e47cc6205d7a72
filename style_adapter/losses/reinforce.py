"""The score-function estimator: a gradient for sampled text from rewards alone, whatever gave them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .precision import widened


def discounted_returns(
    rewards: Float[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"], *, discount: float = 1.0
) -> Float[Tensor, "batch seq"]:
    """R_t = sum_{u >= t} gamma^(u - t) r_u over the tokens of the row: what token t can still answer for.

    `r` = the reward of each token (one for the whole text stands at its last token), `mask` = its own tokens,
    `gamma` = discount. de Masson d'Autume et al. 2019 (arXiv 1905.09922), where r_t = 2 D(x_t) - 1. A reward must not
    depend on tokens after its own, which would then have no part in it: a judge of whole texts rewards the last one.

    >>> discounted_returns(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[True, True, False]]), discount=0.5)
    tensor([[2., 2., 0.]])
    """
    if not 0 <= discount <= 1:
        raise ValueError(
            f"discount={discount} must be >= 0 and <= 1; 1 sums all later rewards, 0 takes the token's own"
        )
    place = torch.arange(rewards.shape[1], device=rewards.device)
    later = place[None] - place[:, None]  # u - t [seq, seq]
    decay = torch.where(later >= 0, float(discount) ** later.clamp(min=0), 0.0)
    kept = widened(rewards).masked_fill(~mask, 0.0)
    return (kept[:, None] * decay.to(kept)).sum(-1) * mask


def reinforce(
    log_probs: Float[Tensor, "batch seq"],
    returns: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    baseline: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """L_b = -sum_t (R_bt - c_b) log p(y_bt): its gradient is, on average over samples y, that of -E[R].

    `log_probs` = log p(y_bt | y_b<t) of sampled tokens, which alone get a gradient; `R` = their `discounted_returns`;
    `c` = a baseline that this batch's samples have not moved: it takes variance away and no bias in. Williams 1992
    (REINFORCE), with the returns and the moving average of de Masson d'Autume et al. 2019 (arXiv 1905.09922). The
    moving average is `StylePrototypes(n_styles, 1)` fed with each row's mean return: one baseline a style,
    all-reduced and committed once a step.
    """
    advantage = (returns - baseline[:, None]).detach()
    return -(advantage * widened(log_probs)).masked_fill(~mask, 0.0).sum(-1)
