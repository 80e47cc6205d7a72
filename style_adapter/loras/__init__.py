"""The way in: LoRAs of one backbone become the styles of one adapter, exactly."""

from .stacking import from_loras

__all__ = ["from_loras"]
