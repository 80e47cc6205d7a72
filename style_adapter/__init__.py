"""style_adapter: one PEFT adapter for all styles, trained against a discriminator on a frozen backbone."""

from ._peft import register
from .config import StyleAdapterConfig
from .model import StyleAdapterModel, styled, styles_of
from .style import OFF, Style, StyleBank

register(StyleAdapterConfig, StyleAdapterModel)

__all__ = ["OFF", "Style", "StyleAdapterConfig", "StyleAdapterModel", "StyleBank", "styled", "styles_of"]
