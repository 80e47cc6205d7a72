"""Terms over the classes of a style head: which style a text has, and whether it is real text at all."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float
from torch import Tensor

from ..functional import positive_shares
from .games import check_smoothing
from .precision import widened


def style_cross_entropy(
    logits: Float[Tensor, "batch n_styles"], weights: Float[Tensor, "batch n_styles"]
) -> Float[Tensor, " batch"]:
    """CE_b = -sum_s q_bs log softmax(logits_b)[s] with `q = max(w, 0) / sum_s max(w_s, 0)`.

    `w` = the weights of a mixture of styles; one-hot (at any strength) for a named style. The auxiliary
    classifier of Odena et al. 2017 (arXiv 1610.09585), eq. 3, with soft targets. A row without a positive weight
    gives 0.
    """
    return _cross_entropy(logits, positive_shares(weights))


def fake_class_generator(
    fake: Float[Tensor, "batch n_styles_and_fake"], weights: Float[Tensor, "batch n_styles"]
) -> Float[Tensor, " batch"]:
    """L_G = -sum_s q_s log D(s | G(z)): what G wrote should be taken for real text of its style.

    `D` = softmax(fake) over the styles and one class more, the last, for fakes; `q` as in `style_cross_entropy`. The
    multi-class discriminator of the Style Transformer (Dai et al. 2019, arXiv 1905.05621), with the extra class of
    Salimans et al. 2016 (arXiv 1606.03498), section 5. With one style it is the non-saturating game. A row without a
    positive weight gives 0.
    """
    return _cross_entropy(fake, F.pad(positive_shares(weights), (0, 1)))


def fake_class_discriminator(
    real: Float[Tensor, "batch n_styles_and_fake"],
    fake: Float[Tensor, "batch n_styles_and_fake"],
    weights: Float[Tensor, "batch n_styles"],
    *,
    smoothing: float = 0.0,
) -> Float[Tensor, " batch"]:
    """L_D = -sum_s q_s log D(s | x) - log D(fake | G(z)): the mirror of `fake_class_generator`.

    `real`, `fake` = logits over the styles and, last, the class of fakes; `q` = the style of the real text. `smoothing`
    eps gives real text the label (1 - eps) q and eps for the class of fakes. A real row without a positive weight
    counts for nothing, its fake does.
    """
    check_smoothing(smoothing)
    shares = positive_shares(weights)
    label = torch.cat([(1 - smoothing) * shares, smoothing * shares.sum(-1, keepdim=True)], dim=-1)
    return _cross_entropy(real, label) - F.log_softmax(widened(fake), dim=-1)[:, -1]


def _cross_entropy(
    logits: Float[Tensor, "batch classes"], label: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """-sum_c label_c log softmax(logits)[c], in fp32 at least; the label need not sum to 1."""
    return -(label * F.log_softmax(widened(logits), dim=-1)).sum(-1)
