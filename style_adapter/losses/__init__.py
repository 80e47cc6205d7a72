"""The terms of the training objective, as pure functions from tensors to one value a row.

A term never averages over rows: gradient accumulation and several processes need the sums and
their own denominators, so the caller reduces. Scores are logits `a`, with `D = sigmoid(a)`.
"""

from .classes import fake_class_discriminator, fake_class_generator, style_cross_entropy
from .features import MATCHINGS, feature_matching, mean_matching, mode_seeking, style_means
from .games import (
    GAMES,
    DiscriminatorLoss,
    Game,
    hinge_discriminator,
    hinge_generator,
    lookup_game,
    minimax_discriminator,
    minimax_generator,
    non_saturating_generator,
    relativistic_discriminator,
    relativistic_generator,
)
from .likelihood import token_cross_entropy, token_kl
from .preference import preference_loss
from .reinforce import discounted_returns, reinforce
from .stability import gradient_penalty, instance_noise

__all__ = [
    "GAMES",
    "MATCHINGS",
    "DiscriminatorLoss",
    "Game",
    "discounted_returns",
    "fake_class_discriminator",
    "fake_class_generator",
    "feature_matching",
    "gradient_penalty",
    "hinge_discriminator",
    "hinge_generator",
    "instance_noise",
    "lookup_game",
    "mean_matching",
    "minimax_discriminator",
    "minimax_generator",
    "mode_seeking",
    "non_saturating_generator",
    "preference_loss",
    "reinforce",
    "relativistic_discriminator",
    "relativistic_generator",
    "style_cross_entropy",
    "style_means",
    "token_cross_entropy",
    "token_kl",
]
