"""The games: what generator and discriminator lower, from scores of real and fake rows.

Scores are logits `a`, with `D = sigmoid(a)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float
from torch import Tensor


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

    >>> import torch
    >>> lookup_game("hinge").generator(torch.zeros(1), torch.tensor([3.0]))
    tensor([-3.])
    """
    if name not in GAMES:
        raise ValueError(f"game={name!r} must be one of {', '.join(GAMES)}; set it to one of these")
    return GAMES[name]


def check_smoothing(smoothing: float) -> None:
    """Refuses a smoothing that leaves the real label outside (0, 1]."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing} must be >= 0 and < 1; 0.1 is usual, 0 turns it off")


def _taken_for_real(score: Float[Tensor, " batch"], smoothing: float) -> Float[Tensor, " batch"]:
    """-(1 - eps) log D - eps log(1 - D) = -log D + eps * a: cross entropy to the label 1 - eps, D = sigmoid(a)."""
    check_smoothing(smoothing)
    return -F.logsigmoid(score) + smoothing * score
