"""Terms over target tokens: what the text should be, and how far the adapter has left the backbone."""

import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float, Int
from torch import Tensor

from ..functional import IGNORED
from .precision import widened


def token_cross_entropy(
    logits: Float[Tensor, "batch seq vocab"], targets: Int[Tensor, "batch seq"], *, label_smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """CE_b = sum_t -log softmax(logits_bt)[targets_bt] over the targets of row b that are not -100.

    `logits_bt` predicts `targets_bt`: shifting them by one is the caller's. `label_smoothing` eps
    makes the target `(1 - eps) * onehot + eps / vocab` (Szegedy et al. 2016, arXiv 1512.00567, section 7).
    A row without targets gives 0. Computed in fp32 (fp64 stays fp64).

    >>> import torch
    >>> token_cross_entropy(torch.zeros(1, 3, 4), torch.tensor([[-100, 2, 0]])).exp()
    tensor([16.])
    """
    kept = targets != IGNORED
    # Prompt and padding go before the upcast: at 49k words a position costs 200 kB in fp32.
    losses = F.cross_entropy(widened(logits[kept]), targets[kept], reduction="none", label_smoothing=label_smoothing)
    return losses.new_zeros(targets.shape).masked_scatter(kept, losses).sum(-1)


def token_kl(
    logits: Float[Tensor, "batch seq vocab"],
    reference: Float[Tensor, "batch seq vocab"],
    targets: Int[Tensor, "batch seq"],
) -> Float[Tensor, " batch"]:
    """KL_b = sum_t sum_v p_btv (log p_btv - log q_btv) over the targets of row b that are not -100.

    `p` = softmax(logits), the adapted model; `q` = softmax(reference), the frozen backbone, whose logits are computed
    without gradient. The direction is that of Ziegler et al. 2019 (arXiv 1909.08593), eq. 2: it punishes what the
    backbone finds unlikely, text that is not fluent, and lets a style give up words that the backbone would use. The
    other one, the same function with its first two arguments swapped, asks the style to keep all of them.
    A row without targets gives 0. Computed in fp32 (fp64 stays fp64).

    >>> import torch
    >>> token_kl(torch.tensor([[[0.0, -99.0]]]), torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long)).exp()
    tensor([2.])
    """
    kept = targets != IGNORED
    adapted, frozen = (F.log_softmax(widened(x[kept]), dim=-1) for x in (logits, reference))
    losses = F.kl_div(frozen, adapted, reduction="none", log_target=True).sum(-1)
    return losses.new_zeros(targets.shape).masked_scatter(kept, losses).sum(-1)
