"""The game under Accelerate: the trainer, the two sides its optimizer moves, the record its log lines show."""

from .manifest import write_manifest
from .monitor import GameMonitor
from .sides import (
    DISCRIMINATOR_FILE,
    build_game,
    discriminator_state,
    load_discriminator_state,
    parameter_groups,
    sides_of,
)
from .style_trainer import StyleTrainer

__all__ = [
    "DISCRIMINATOR_FILE",
    "GameMonitor",
    "StyleTrainer",
    "build_game",
    "discriminator_state",
    "load_discriminator_state",
    "parameter_groups",
    "sides_of",
    "write_manifest",
]
