"""The game: generator and discriminator in one module, one forward, named losses."""

from .features import FrozenFeatures, backbone_of, frozen_copy, width_of
from .lesson import Batch, Lesson, dense_weights
from .memory import GameMemory
from .rules import GameRules
from .style_game import StepLosses, StyleGame
from .terms import DISCRIMINATOR_TERMS, GENERATOR_TERMS
from .writer import Writer

__all__ = [
    "DISCRIMINATOR_TERMS",
    "GENERATOR_TERMS",
    "Batch",
    "FrozenFeatures",
    "GameMemory",
    "GameRules",
    "Lesson",
    "StepLosses",
    "StyleGame",
    "Writer",
    "backbone_of",
    "dense_weights",
    "frozen_copy",
    "width_of",
]
