"""Terms over style features: near their prototypes, each alone or on average, and apart where the noise is."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float
from torch import Tensor

from ..functional import positive_shares

MATCHINGS = ("row", "mean")  # what is drawn to a prototype: each fake, or the mean of all


def feature_matching(
    features: Float[Tensor, "batch dim"], prototypes: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """l(S, S*) = 1/dim * sum_d (S_d - S*_d)^2: the mean squared error of style features.

    `S` = features of G(z), `S*` = the features its style should have (their mean over real texts:
    Salimans et al. 2016, arXiv 1606.03498, section 3.1, there between means of batches, which `mean_matching` does).
    """
    return F.mse_loss(features, prototypes, reduction="none").mean(-1)


def style_means(
    features: Float[Tensor, "batch dim"], style: Float[Tensor, "batch n_styles"]
) -> Float[Tensor, "batch dim"]:
    """m_b = sum_s q_bs M_s with `M_s = sum_c w_cs S_c / sum_c w_cs`: each row gets the mean features of its style.

    `w` = weights of the styles, negative ones as 0; `q` = w as shares. Differentiable in `features`, so that
    `feature_matching(style_means(features, style), prototypes)` is the term of Salimans et al. within one batch. A row
    without a positive weight gets 0.
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        mass = style.to(features).clamp(min=0)
        means = mass.T @ features / mass.sum(0).clamp(min=torch.finfo(mass.dtype).tiny)[:, None]  # [n_styles, dim]
        return positive_shares(style.to(features)) @ means


def mean_matching(
    features: Float[Tensor, "batch dim"], means: Float[Tensor, "batch dim"], prototypes: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """l_b = 1/dim * || m - S* ||^2, with the gradient 2/dim * (m - S*) for the row's own features S_b.

    `m` = the mean features of the fakes of the row's style, a number here; `S*` = those of its real texts. Matches
    the means and lets the rows differ, where `feature_matching` draws each one to the average text: Salimans et al.
    2016 (arXiv 1606.03498), section 3.1, for each style.

    A square of a mean is no sum over rows: its gradient needs `m` of the whole batch before the first row of it. Given
    that `m` (`style_means(features.detach(), style)` where the batch is whole), the mean of l over rows has exactly
    the value and gradient of the term for named styles, and any split into accumulated or distributed parts adds up
    to it. Where parts come one by one, `m` is a running mean over the fakes of earlier steps (`StylePrototypes` over
    fakes): still the same for every split, a little late. Means of each part alone would be another, noisier term.
    """
    gap = (means - prototypes).detach()
    # Worth its square, with the slope of 2 <gap, S>: the mean's own slope, shared out to the rows it is made of.
    return (gap.pow(2) + 2 * gap * (features - features.detach())).mean(-1)


def mode_seeking(
    first: Float[Tensor, "batch dim"],
    second: Float[Tensor, "batch dim"],
    noise_first: Float[Tensor, "batch noise"],
    noise_second: Float[Tensor, "batch noise"],
    *,
    eps: float = 0.1,
) -> Float[Tensor, " batch"]:
    """L_ms = d(z1, z2) / (d(G(z1), G(z2)) + eps) with `d(u, v) = mean |u - v|`: far noise, far outputs.

    `first` = features of G(z1), `second` = features of G(z2). Mao et al. 2019 (arXiv 1903.05628),
    section 3.2, as the quotient that is lowered. The value is at most d(z1, z2) / eps and its slope in
    d(G(z1), G(z2)) at most d(z1, z2) / eps^2.
    """
    # The authors' 1e-5 suits pixels. A gate that starts at zero gives G(z1) close to G(z2), and the
    # slope would then be 1e10: the one term would take the whole of a clipped gradient.
    outputs = (first - second).abs().mean(-1)
    return (noise_first - noise_second).abs().mean(-1) / (outputs + eps)
