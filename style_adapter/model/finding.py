"""Finding the adapted layers of any module, also where PEFT drops the tuner."""

from collections.abc import Iterator

from torch import nn

from ..layers import StyleLayer
from ..style import StyleContext


def adapted_layers(model: nn.Module) -> Iterator[StyleLayer]:
    """The adapted layers of `model`, in module order."""
    return (module for module in model.modules() if isinstance(module, StyleLayer))


def first_layer(model: nn.Module) -> StyleLayer:
    """Any adapted layer: all share one context and one list of active adapters."""
    layer = next(adapted_layers(model), None)
    if layer is None:
        raise ValueError(f"model={type(model).__name__} must have a style adapter; add one with get_peft_model")
    return layer


def first_layers(model: nn.Module) -> dict[StyleContext, StyleLayer]:
    """Any adapted layer of each context: adapters that were injected into parts of `model` apart have one each.

    Raises:
        ValueError: `model` has no adapted layer.
    """
    found: dict[StyleContext, StyleLayer] = {}
    for layer in adapted_layers(model):
        found.setdefault(layer.style_context, layer)
    return found or {first_layer(model).style_context: first_layer(model)}
