"""The tuner, the styles in force around a model, the ways into it that take styles, and its gates."""

from .gates import gates_of
from .head import head_reads, target_logits
from .styled import Strength, styled, styles_of
from .tuner import StyleAdapterModel

__all__ = ["Strength", "StyleAdapterModel", "gates_of", "head_reads", "styled", "styles_of", "target_logits"]
