"""The tuner, the styles in force around a model, and the ways into it that take styles."""

from .head import head_reads
from .styled import styled, styles_of
from .tuner import StyleAdapterModel

__all__ = ["StyleAdapterModel", "head_reads", "styled", "styles_of"]
