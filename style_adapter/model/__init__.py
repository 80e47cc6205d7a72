"""The tuner, the styles in force around a model, the ways into it that take styles, and its gates."""

from .gates import gates_of
from .head import head_reads, target_logits
from .styled import Strength, styled, styles_of
from .tuner import StyleAdapterModel, bank_of

__all__ = ["Strength", "StyleAdapterModel", "bank_of", "gates_of", "head_reads", "styled", "styles_of", "target_logits"]
