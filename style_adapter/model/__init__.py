"""The tuner, the styles in force around a model, the ways into it that take styles, and its gates."""

from .gates import StyleMap, gates_of, style_map
from .head import head_reads, target_logits
from .styled import Strength, styled, styles_of
from .tuner import StyleAdapterModel, bank_of

__all__ = [
    "Strength",
    "StyleAdapterModel",
    "StyleMap",
    "bank_of",
    "gates_of",
    "head_reads",
    "style_map",
    "styled",
    "styles_of",
    "target_logits",
]
