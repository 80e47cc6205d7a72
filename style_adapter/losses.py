"""The terms of the training objective, as pure functions from tensors to one value a row.

A term never averages over rows: gradient accumulation and several processes need the sums and
their own denominators, so the caller reduces. Scores are logits `a`, with `D = sigmoid(a)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float, Int
from torch import Tensor

from .functional import IGNORED, positive_shares


def token_cross_entropy(
    logits: Float[Tensor, "batch seq vocab"], targets: Int[Tensor, "batch seq"], *, label_smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """CE_b = sum_t -log softmax(logits_bt)[targets_bt] over the targets of row b that are not -100.

    `logits_bt` predicts `targets_bt`: shifting them by one is the caller's. `label_smoothing` eps
    makes the target `(1 - eps) * onehot + eps / vocab` (Szegedy et al. 2016, arXiv 1512.00567, section 7).
    A row without targets gives 0. Computed in fp32 (fp64 stays fp64).

    >>> token_cross_entropy(torch.zeros(1, 3, 4), torch.tensor([[-100, 2, 0]])).exp()
    tensor([16.])
    """
    kept = targets != IGNORED
    # Prompt and padding go before the upcast: at 49k words a position costs 200 kB in fp32.
    losses = F.cross_entropy(_widened(logits[kept]), targets[kept], reduction="none", label_smoothing=label_smoothing)
    return losses.new_zeros(targets.shape).masked_scatter(kept, losses).sum(-1)


def minimax_generator(real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """L_G = log D(x) + log(1 - D(G(z))): the game's value, which G lowers and D raises.

    `real` = logit of D(x), `fake` = logit of D(G(z)). Goodfellow et al. 2014 (arXiv 1406.2661), eq. 1.
    The first term is constant for G; it is there so that L_G = -L_D holds to the letter.
    """
    return F.logsigmoid(real) + F.logsigmoid(-fake)


def minimax_discriminator(
    real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"], *, smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """L_D = -log D(x) - log(1 - D(G(z))): Goodfellow et al. 2014 (arXiv 1406.2661), eq. 1, negated.

    `smoothing` eps lowers the label of real text alone from 1 to 1 - eps (Salimans et al. 2016, arXiv 1606.03498,
    section 3.4).
    """
    return _taken_for_real(real, smoothing) - F.logsigmoid(-fake)


def non_saturating_generator(real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """L_G = -log D(G(z)): Goodfellow et al. 2014 (arXiv 1406.2661), section 3, last paragraph.

    Same fixed point as minimax, but the gradient is largest where D recognises the fake. `real` is not used.
    """
    return -F.logsigmoid(fake)


def hinge_generator(real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """L_G = -a(G(z)): Lim & Ye 2017 (arXiv 1705.02894); Miyato et al. 2018 (arXiv 1802.05957), eq. 17.

    `a` is the score itself. `real` is not used.
    """
    return -fake


def hinge_discriminator(
    real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"], *, smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """L_D = max(0, 1 - a(x)) + max(0, 1 + a(G(z))): Lim & Ye 2017 (arXiv 1705.02894), the loss
    of the projection discriminator too (Miyato & Koyama 2018, arXiv 1802.05637).

    `a` is the score itself. There is no label to smooth, so `smoothing` must stay 0.
    """
    if smoothing:
        raise ValueError(
            f"smoothing={smoothing} must be 0 in the hinge game, which has margins and no labels; "
            "set it to 0 or choose a game with labels: minimax, non_saturating, relativistic"
        )
    return F.relu(1 - real) + F.relu(1 + fake)


def relativistic_generator(real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """L_G = softplus(-(a(G(z)) - a(x))): RpGAN, Jolicoeur-Martineau 2018 (arXiv 1807.00734), section 4;
    R3GAN, Huang et al. 2024 (arXiv 2501.05441), eq. 2.

    Row b compares one fake with one real text, so both rows should be asked for the same style.
    """
    return -F.logsigmoid(fake - real)


def relativistic_discriminator(
    real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"], *, smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """L_D = softplus(-(a(x) - a(G(z)))): RpGAN, the mirror of `relativistic_generator`.

    `smoothing` eps lowers the label of "x is more real than G(z)" from 1 to 1 - eps.
    """
    return _taken_for_real(real - fake, smoothing)


@runtime_checkable
class DiscriminatorLoss(Protocol):
    """The discriminator's side of a game: scores of real and fake rows, and how far to smooth the real label."""

    def __call__(
        self, real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"], *, smoothing: float = 0.0
    ) -> Float[Tensor, " batch"]:
        """One loss a row, which the discriminator lowers."""
        ...


@dataclass(frozen=True)
class Game:
    """Two losses over the same scores; each side lowers its own.

    Attributes:
        name: The key in `GAMES`.
        generator: (real, fake) to one loss a row, whose gradient belongs to the generator alone.
        discriminator: (real, fake, *, smoothing=0.0) to one loss a row, whose gradient belongs to the discriminator.
    """

    name: str
    generator: Callable[[Float[Tensor, " batch"], Float[Tensor, " batch"]], Float[Tensor, " batch"]]
    discriminator: DiscriminatorLoss


GAMES: dict[str, Game] = {
    game.name: game
    for game in (
        Game("minimax", minimax_generator, minimax_discriminator),
        Game("non_saturating", non_saturating_generator, minimax_discriminator),
        Game("hinge", hinge_generator, hinge_discriminator),
        Game("relativistic", relativistic_generator, relativistic_discriminator),
    )
}


def lookup_game(name: str) -> Game:
    """`GAMES[name]`, or an error that lists the games there are.

    >>> lookup_game("hinge").generator(torch.zeros(1), torch.tensor([3.0]))
    tensor([-3.])
    """
    if name not in GAMES:
        raise ValueError(f"game={name!r} must be one of {', '.join(GAMES)}; set it to one of these")
    return GAMES[name]


def feature_matching(
    features: Float[Tensor, "batch dim"], prototypes: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """l(S, S*) = 1/dim * sum_d (S_d - S*_d)^2: the mean squared error of style features.

    `S` = features of G(z), `S*` = the features its style should have (their mean over real texts:
    Salimans et al. 2016, arXiv 1606.03498, section 3.1, there between means of batches).
    """
    return F.mse_loss(features, prototypes, reduction="none").mean(-1)


def style_cross_entropy(
    logits: Float[Tensor, "batch n_styles"], weights: Float[Tensor, "batch n_styles"]
) -> Float[Tensor, " batch"]:
    """CE_b = -sum_s q_bs log softmax(logits_b)[s] with `q = max(w, 0) / sum_s max(w_s, 0)`.

    `w` = the weights of a mixture of styles; one-hot (at any strength) for a named style. The auxiliary
    classifier of Odena et al. 2017 (arXiv 1610.09585), eq. 3, with soft targets. A row without a positive weight
    gives 0.
    """
    return -(positive_shares(weights) * F.log_softmax(_widened(logits), dim=-1)).sum(-1)


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
    return _widened(slope).flatten(1).pow(2).sum(-1)


def _taken_for_real(score: Float[Tensor, " batch"], smoothing: float) -> Float[Tensor, " batch"]:
    """-(1 - eps) log D - eps log(1 - D) = -log D + eps * a: cross entropy to the label 1 - eps, D = sigmoid(a)."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing} must be >= 0 and < 1; 0.1 is usual, 0 turns it off")
    return -F.logsigmoid(score) + smoothing * score


def _widened(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same values in fp32 at least: half precision goes up, fp64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
