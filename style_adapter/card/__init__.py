"""The model card, written by the run: what the adapter is, how to use it with and without this package, its numbers."""

from .writing import beyond_lora, has_card, hub_base, write_card

__all__ = ["beyond_lora", "has_card", "hub_base", "write_card"]
