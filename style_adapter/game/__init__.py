"""The game: generator and discriminator in one module, one forward, named losses."""

from .features import FrozenFeatures, backbone_of, frozen_copy, width_of
from .style_game import (
    DISCRIMINATOR_TERMS,
    GENERATOR_TERMS,
    Batch,
    StepLosses,
    StyleGame,
    dense_weights,
)

__all__ = [
    "DISCRIMINATOR_TERMS",
    "GENERATOR_TERMS",
    "Batch",
    "FrozenFeatures",
    "StepLosses",
    "StyleGame",
    "backbone_of",
    "dense_weights",
    "frozen_copy",
    "width_of",
]
