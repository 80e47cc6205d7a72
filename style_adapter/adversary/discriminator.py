"""The discriminator: a small head that judges features of texts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ..functional import positive_shares
from .numerics import check_positive, no_autocast

DISCRIMINATORS = ("projection", "two_way", "fake_class")


@dataclass(frozen=True)
class Judgement:
    """What a discriminator says of a batch of texts.

    Attributes:
        realness: A logit, positive for a real text of the style asked for.
        style_logits: Which style the text has, whatever was asked for; the last class is that of fakes where there is
            one.
        pooled: The style features phi, which the prototypes are means of.
    """

    realness: Float[Tensor, " batch"]
    style_logits: Float[Tensor, "batch classes"]
    pooled: Float[Tensor, "batch dim"]


class StyleDiscriminator(nn.Module):
    """Judges texts by their features: how real a text is in the style asked for, and which style it has.

    `h = MLP(phi)` with `phi = sum_t softmax_t(q.x_t / sqrt(dim)) x_t` over the unpadded positions, `x` = features after
    layer norm without weights; `q` starts at 0, so phi starts as the mean over positions. With `w` = the weights of the
    style asked for, `kind` gives the realness:

    - "projection": v.h + b + <sum_s w_s E_s, h>, a style costs one row `E_s` (Miyato & Koyama 2018, arXiv 1802.05637,
      section 3, eqs. 3-5);
    - "two_way": v.h + b, real or fake whatever the style (Goodfellow et al. 2014, arXiv 1406.2661);
    - "fake_class": <q, a> - a_fake with q = w as shares, the log-odds of the style against one class more, that of
      fakes (Style Transformer, Dai et al. 2019, arXiv 1905.05621);

    where `a = U h + c` are the style logits. Everything is computed in the weights' own precision (fp32), also inside
    autocast: R1 differentiates twice here.

    Args:
        dim: Width of the features.
        n_styles: Number of styles.
        kind: One of `DISCRIMINATORS`.
        width: Width of h.
        dropout: Inside the MLP.
        spectral_norm: Divide each weight on the way to realness by its largest singular value (Miyato et al. 2018,
            arXiv 1802.05957, eq. 8).

    Raises:
        ValueError: An unknown kind, or a size below 1.
    """

    def __init__(
        self,
        dim: int,
        n_styles: int,
        *,
        kind: str = "projection",
        width: int = 256,
        dropout: float = 0.0,
        spectral_norm: bool = False,
    ) -> None:
        """Build the head; its random start follows torch's global generator."""
        super().__init__()
        check_positive(dim=dim, n_styles=n_styles, width=width)
        if kind not in DISCRIMINATORS:
            raise ValueError(f"kind={kind!r} must be one of {', '.join(DISCRIMINATORS)}; set it to one of these")
        bounded: Callable[[nn.Module], nn.Module] = parametrizations.spectral_norm if spectral_norm else nn.Identity()
        # Layer norm undoes any scale of the weight before it, so a bound on that weight would bound nothing.
        norm = nn.Identity() if spectral_norm else nn.LayerNorm(width)
        # torch's start for a Linear looks at the inputs: with 2 styles <E_s, h> would drown v.h.
        styles = nn.Linear(n_styles, width, bias=False)
        nn.init.normal_(styles.weight, std=width**-0.5)
        self.kind = kind
        self.query = nn.Parameter(torch.zeros(dim))
        enter, mix = bounded(nn.Linear(dim, width)), bounded(nn.Linear(width, width))
        self.body = nn.Sequential(enter, norm, nn.GELU(), nn.Dropout(dropout), mix, nn.GELU())
        self.realness = None if kind == "fake_class" else bounded(nn.Linear(width, 1))
        self.styles = bounded(styles) if kind == "projection" else None
        self.classifier = nn.Linear(width, n_styles + (kind == "fake_class"))

    def forward(
        self,
        features: Float[Tensor, "batch seq dim"],
        mask: Bool[Tensor, "batch seq"] | Int[Tensor, "batch seq"],
        style: Float[Tensor, "batch n_styles"],
    ) -> Judgement:
        """Judge each row against the `style` asked for; `mask` is 0 at padding, which changes nothing."""
        dtype = self.query.dtype
        with no_autocast(features):
            pooled = self.pool(features.to(dtype), mask.bool())
            hidden = self.body(pooled)  # [batch, width]
            logits = self.classifier(hidden)
            return Judgement(self._score(hidden, logits, style.to(dtype)), logits, pooled)

    def prefixes(
        self,
        features: Float[Tensor, "batch seq dim"],
        mask: Bool[Tensor, "batch seq"],
        style: Float[Tensor, "batch n_styles"],
    ) -> Float[Tensor, "batch seq"]:
        """The realness of each text cut after token t: `phi_t` pools the positions up to t alone.

        A reward for each token (de Masson d'Autume et al. 2019, arXiv 1905.09922), for features that do not see later
        tokens, as a decoder's do not.
        """
        dtype = self.query.dtype
        with no_autocast(features):
            x, relevance = self._read(features.to(dtype), mask)
            weights = (relevance - relevance.amax(-1, keepdim=True)).exp()[..., None]  # [batch, seq, 1]
            pooled = (weights * x).cumsum(1) / weights.cumsum(1).clamp(min=torch.finfo(dtype).tiny)
            hidden = self.body(pooled)  # [batch, seq, width]
            return self._score(hidden, self.classifier(hidden), style.to(dtype)[:, None])

    def _score(
        self,
        hidden: Float[Tensor, "*batch width"],
        logits: Float[Tensor, "*batch classes"],
        style: Float[Tensor, "*rows n_styles"],
    ) -> Float[Tensor, "*batch"]:
        """The realness that the class docstring gives for this kind."""
        if self.realness is None:
            return (positive_shares(style) * logits[..., :-1]).sum(-1) - logits[..., -1]
        score = self.realness(hidden).squeeze(-1)
        return score if self.styles is None else score + (self.styles(style) * hidden).sum(-1)

    def pool(
        self, features: Float[Tensor, "batch seq dim"], mask: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch dim"]:
        """`phi = sum_t softmax_t(q.x_t / sqrt(dim)) x_t`, where `x = layer_norm(features)` and padding weighs 0."""
        x, relevance = self._read(features, mask)
        return torch.einsum("bs,bsd->bd", relevance.softmax(-1), x)

    def _read(
        self, features: Float[Tensor, "batch seq dim"], mask: Bool[Tensor, "batch seq"]
    ) -> tuple[Float[Tensor, "batch seq dim"], Float[Tensor, "batch seq"]]:
        """x and q.x_t / sqrt(dim), the least finite number at padding."""
        dim = features.shape[-1]
        # Padding may hold NaN (rows that attend to nothing), and 0 * NaN is NaN.
        x = F.layer_norm(features.masked_fill(~mask[..., None], 0.0), (dim,))
        # Not -inf: a row that is padding throughout then stays finite.
        return x, (x @ self.query * dim**-0.5).masked_fill(~mask, torch.finfo(x.dtype).min)


def judge_detached(
    discriminator: nn.Module,
    features: Float[Tensor, "batch seq dim"],
    mask: Bool[Tensor, "batch seq"] | Int[Tensor, "batch seq"],
    style: Float[Tensor, "batch n_styles"],
) -> Judgement:
    """D_sg(psi)(features): the judgement with D's weights psi held constant, so that gradient reaches only features.

    The generator's side of the game. Its mirror, D's side, is `discriminator(features.detach(), mask, style)`.
    """
    learning = [weight for weight in discriminator.parameters() if weight.requires_grad]
    try:
        for weight in learning:
            weight.requires_grad_(False)
        return discriminator(features, mask, style)
    finally:
        for weight in learning:
            weight.requires_grad_(True)
