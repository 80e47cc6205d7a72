"""The adversary: the game and the discriminator."""

from dataclasses import dataclass

from ..adversary import DISCRIMINATORS, STORES
from ..estimators import ESTIMATORS, FAKES, FOR_SAMPLED_TEXT
from ..losses import GAMES
from .options import option

# transformers' schedules that are a factor of the step alone and need no options of their own.
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)


@dataclass
class AdversaryOptions:
    """The game and the discriminator."""

    game: str = option(
        "non_saturating",
        "The game both sides play: minimax, non_saturating, hinge or relativistic.",
        choices=tuple(GAMES),
    )
    fakes: str | None = option(
        None,
        "teacher_forced: one pass serves likelihood and game. sampled: texts written token by token, which unpaired "
        "training needs and takes if this is left out.",
        choices=FAKES,
    )
    estimator: str = option(
        "sampled",
        "How discrete text passes a gradient: straight_through (the likeliest token), gumbel, sampled (a drawn one), "
        "soft (mixtures of tokens) or reinforce (rewards alone, for sampled fakes).",
        choices=ESTIMATORS,
    )
    estimator_top_k: int = option(
        64, "How many of the likeliest tokens the estimator's softmax is over.", bounds=">= 2"
    )
    reward_discount: float = option(
        1.0, "Discount of later tokens' rewards, of the estimator reinforce.", bounds="in [0, 1]"
    )
    sampling_temperature: float = option(
        1.0, "Temperature at which fakes are sampled; 0 takes the likeliest token.", bounds=">= 0"
    )
    sampling_top_k: int = option(64, "How many tokens may be drawn where fakes are sampled.", bounds=">= 1")
    sampling_top_p: float = option(
        1.0, "Least probability of the tokens that may be drawn where fakes are sampled.", bounds="in (0, 1]"
    )
    sampling_length: int | None = option(
        None, "Most tokens of a sampled fake; one and a half times its prompt if left out.", bounds=">= 1"
    )
    discriminator_kind: str = option(
        "projection",
        "What the discriminator tells: projection (real in this style), two_way (real), or fake_class (which style, or "
        "fake).",
        choices=DISCRIMINATORS,
    )
    discriminator_steps: int = option(
        1, "Of so many optimizer steps all but the last train the discriminator alone.", bounds=">= 1"
    )
    discriminator_learning_rate: float = option(5e-4, "Learning rate of the discriminator.", bounds=">= 0")
    discriminator_lr_scheduler_type: str | None = option(
        None, "Schedule of the discriminator's rate; that of the adapter's if left out.", choices=SCHEDULES
    )
    discriminator_beta1: float = option(
        0.5, "First AdamW beta of the discriminator; low, as its target moves.", bounds="in [0, 1)"
    )
    discriminator_beta2: float | None = option(
        None, "Second AdamW beta of the discriminator; adam_beta2 if left out.", bounds="in [0, 1)"
    )
    discriminator_weight_decay: float = option(0.0, "Weight decay of the discriminator.", bounds=">= 0")
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
    adversary_start: int = option(100, "Optimizer steps of likelihood alone before the game starts.", bounds=">= 0")
    adversary_fraction: float = option(
        0.5,
        "Share of the rows that the discriminator sees, in [0, 1]; 0: no game.",
        bounds="in [0, 1]",
        remedy="0 turns the game off",
    )
    instance_noise: float = option(
        0.0,
        "Noise on the features that the discriminator reads, in units of their size; falls to 0 over the run.",
        bounds=">= 0",
        remedy="0 turns it off",
    )
    replay_size: int = option(0, "How many old fakes are kept for the discriminator; 0: none.", bounds=">= 0")
    replay_fraction: float = option(
        0.5, "Share of the discriminator's fakes that are old ones, where any are kept.", bounds="in [0, 1]"
    )
    feature_store: str = option(
        "none",
        "Where features of real texts are kept once they are read: none, memory, or disk (a file in output_dir that "
        "goes with the run).",
        choices=STORES,
    )
    temperature: float = option(
        1.0,
        "Temperature of the estimator's softmax over the vocabulary.",
        bounds="> 0",
        remedy="1 changes nothing",
    )
    prototype_rate: float = option(0.1, "Rate at which style prototypes follow new texts.", bounds="in (0, 1]")

    def _check_fakes(self) -> None:
        """Refuses estimators that need another kind of fakes.

        Raises:
            ValueError: They do not go together.
        """
        if self.fakes == "sampled" and self.estimator not in FOR_SAMPLED_TEXT:
            raise ValueError(
                f"estimator={self.estimator!r} must be one of {', '.join(FOR_SAMPLED_TEXT)} where fakes='sampled': it "
                "would show the discriminator another text than the one that was written"
            )
        if self.fakes == "teacher_forced" and self.estimator == "reinforce":
            raise ValueError("fakes='teacher_forced' must be 'sampled' for estimator='reinforce'; set it so")
        if self.discriminator_kind == "fake_class" and self.game != "non_saturating":
            raise ValueError(
                f"game={self.game!r} must be 'non_saturating' where discriminator_kind='fake_class', whose game is "
                "over classes; leave it out"
            )

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

    def _check_schedules(self, adapter: str) -> None:
        """Refuses another schedule for the discriminator than the `adapter`'s where that one follows a metric.

        Raises:
            ValueError: The two cannot be one scheduler.
        """
        own = self.discriminator_lr_scheduler_type
        if own is not None and adapter in ("reduce_lr_on_plateau", "greedy"):
            raise ValueError(
                f"discriminator_lr_scheduler_type={own!r} must be left out with lr_scheduler_type={adapter!r}, which "
                "follows a metric and moves all rates alike; choose another lr_scheduler_type"
            )
