"""The rules of one game: which terms are played for, and how each side's loss is read off a judgement."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..adversary import Judgement
from ..estimators import ESTIMATORS, FAKES, FOR_SAMPLED_TEXT
from ..losses import MATCHINGS, Game, fake_class_discriminator, fake_class_generator, lookup_game


@dataclass(frozen=True)
class GameRules:
    """What a game is played by; nothing here learns.

    Attributes:
        game: A key of `losses.GAMES`.
        depth: How many of the backbone's blocks the discriminator reads.
        smoothing: One-sided label smoothing on the real side.
        r1: Whether to compute the R1 penalty, on real texts.
        r2: Whether to compute the R2 penalty, on fakes.
        prototype_rate: EMA rate of the style prototypes S*.
        fakes: "teacher_forced": the logits at the target's own positions, one pass for likelihood and game.
            "sampled": a text written token by token, then read again for its gradient.
        estimator: One of `estimators.ESTIMATORS`: how discrete text passes a gradient.
        temperature: Of the estimator's softmax.
        top_k: How many tokens the estimator's softmax is over.
        matching: "row": each fake's features near S*. "mean": the fakes' mean near S*.
        back_translation: Whether a sampled rewrite is translated back: CE(x | y, s_x).
        kl: Whether to compute the divergence from the frozen backbone.
        preference: Beta of the comparison with rejected texts; 0 compares nothing.
        diversity: Whether each fake is written twice, with two noises.
        discount: Of later tokens' rewards, where the estimator is "reinforce".
        replay: Share of the discriminator's fakes that are old ones.
    """

    game: str = "non_saturating"
    depth: int = 4
    smoothing: float = 0.0
    r1: bool = False
    r2: bool = False
    prototype_rate: float = 0.1
    fakes: str = "teacher_forced"
    estimator: str = "straight_through"
    temperature: float = 1.0
    top_k: int = 64
    matching: str = "row"
    back_translation: bool = False
    kl: bool = False
    preference: float = 0.0
    diversity: bool = False
    discount: float = 1.0
    replay: float = 0.0


@dataclass(frozen=True)
class ScoreVerdict:
    """A game over the scores of realness."""

    game: Game
    smoothing: float

    def generator(
        self, real: Judgement, fake: Judgement, style: Float[Tensor, "batch n_styles"]
    ) -> Float[Tensor, " batch"]:
        """The game's own."""
        return self.game.generator(real.realness, fake.realness)

    def discriminator(
        self, real: Judgement, fake: Judgement, style: Float[Tensor, "batch n_styles"]
    ) -> Float[Tensor, " batch"]:
        """The game's own."""
        return self.game.discriminator(real.realness, fake.realness, smoothing=self.smoothing)


@dataclass(frozen=True)
class ClassVerdict:
    """The non-saturating game over classes: each style, and one more for fakes."""

    smoothing: float

    def generator(
        self, real: Judgement, fake: Judgement, style: Float[Tensor, "batch n_styles"]
    ) -> Float[Tensor, " batch"]:
        """`fake_class_generator`."""
        return fake_class_generator(fake.style_logits, style)

    def discriminator(
        self, real: Judgement, fake: Judgement, style: Float[Tensor, "batch n_styles"]
    ) -> Float[Tensor, " batch"]:
        """`fake_class_discriminator`."""
        return fake_class_discriminator(real.style_logits, fake.style_logits, style, smoothing=self.smoothing)


Verdict = ScoreVerdict | ClassVerdict  # both sides' adversarial losses, one value a row


def verdict_of(rules: GameRules, kind: str) -> Verdict:
    """How a discriminator of `kind` is played against.

    Raises:
        ValueError: An unknown game, or one that is not over classes where the discriminator has a class of fakes.
    """
    game = lookup_game(rules.game)
    if kind != "fake_class":
        return ScoreVerdict(game, rules.smoothing)
    if rules.game != "non_saturating":
        raise ValueError(
            f"game={rules.game!r} must be 'non_saturating' for a discriminator with a class of fakes, whose game is "
            "over classes; choose another discriminator, or that game"
        )
    return ClassVerdict(rules.smoothing)


def check_rules(rules: GameRules, *, writes: bool) -> None:
    """Refuses rules that do not go together.

    Raises:
        ValueError: An unknown choice, an estimator that shows another text than the sampled one, or sampled texts with
            nobody to write them.
    """
    for name, known in (("fakes", FAKES), ("estimator", ESTIMATORS), ("matching", MATCHINGS)):
        if (value := getattr(rules, name)) not in known:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}; choose one")
    sampled = rules.fakes == "sampled"
    if sampled and rules.estimator not in FOR_SAMPLED_TEXT:
        raise ValueError(
            f"estimator={rules.estimator!r} must be one of {', '.join(FOR_SAMPLED_TEXT)} for sampled fakes: it would "
            "show the discriminator another text than the one that was written"
        )
    if not sampled and (rules.back_translation or rules.estimator == "reinforce"):
        raise ValueError(
            "fakes='teacher_forced' must be 'sampled' for back-translation and for the estimator 'reinforce', which "
            "need texts that the generator wrote by itself"
        )
    if sampled and not writes:
        raise ValueError("writer=None must be a Writer for sampled fakes; build_game of the trainer makes one")
