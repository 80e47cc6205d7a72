"""Finding the adapted layers of any module, also where PEFT drops the tuner."""

from collections.abc import Iterable, Iterator

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


def every_layer(model: nn.Module) -> list[StyleLayer]:
    """All adapted layers: one walk through the modules, for who needs them more than once.

    Raises:
        ValueError: `model` has none.
    """
    return list(adapted_layers(model)) or [first_layer(model)]


def first_layers(layers: Iterable[StyleLayer]) -> dict[StyleContext, StyleLayer]:
    """One of `layers` for each context: adapters that were injected into parts of a model apart have one each."""
    found: dict[StyleContext, StyleLayer] = {}
    for layer in layers:
        found.setdefault(layer.style_context, layer)
    return found
