"""The adversary: the game and the discriminator."""

from dataclasses import dataclass

from ..losses import GAMES
from .options import option


@dataclass
class AdversaryOptions:
    """The game and the discriminator."""

    game: str = option(
        "non_saturating",
        "The game both sides play: minimax, non_saturating, hinge or relativistic.",
        choices=tuple(GAMES),
    )
    discriminator_learning_rate: float = option(5e-4, "Learning rate of the discriminator.")
    discriminator_beta1: float = option(0.5, "First AdamW beta of the discriminator; low, as its target moves.")
    discriminator_weight_decay: float = option(0.0, "Weight decay of the discriminator.")
    discriminator_blocks: int = option(
        4, "How many blocks of the frozen backbone the discriminator reads.", bounds=">= 1"
    )
    discriminator_copy: bool = option(
        False, "Let the discriminator read a frozen copy of the backbone: where trainable='all'."
    )
    discriminator_width: int = option(256, "Width of the discriminator's head.", bounds=">= 1")
    discriminator_spectral_norm: bool = option(False, "Bound the discriminator's layers by spectral normalisation.")
    discriminator_smoothing: float | None = option(
        None,
        "One-sided label smoothing of real texts; 0.1 if left out, 0 in the hinge game (no labels).",
        bounds="in [0, 1)",
        remedy="0.1 is usual",
    )
    adversary_start: int = option(100, "Optimizer steps of likelihood alone before the game starts.")
    adversary_fraction: float = option(
        0.5,
        "Share of the rows that the discriminator sees, in [0, 1]; 0: no game.",
        bounds="in [0, 1]",
        remedy="0 turns the game off",
    )
    temperature: float = option(
        1.0,
        "Temperature of the straight-through softmax over the vocabulary.",
        bounds="> 0",
        remedy="1 changes nothing",
    )
    prototype_rate: float = option(0.1, "Rate at which style prototypes follow new texts.")

    def _settle_smoothing(self) -> None:
        """The usual smoothing where none is given; none in the game that has no labels.

        Raises:
            ValueError: Labels are to be smoothed in the hinge game.
        """
        if self.discriminator_smoothing is None:
            self.discriminator_smoothing = 0.0 if self.game == "hinge" else 0.1
        if self.game == "hinge" and self.discriminator_smoothing:
            raise ValueError(
                f"discriminator_smoothing={self.discriminator_smoothing} must be 0 in the hinge game, which has "
                "margins and no labels; set it to 0"
            )
