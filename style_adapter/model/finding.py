"""Finding the adapted layers of any module, also where PEFT drops the tuner."""

from collections.abc import Iterator

from torch import nn

from ..layers import StyleLayer


def adapted_layers(model: nn.Module) -> Iterator[StyleLayer]:
    """The adapted layers of `model`, in module order."""
    return (module for module in model.modules() if isinstance(module, StyleLayer))


def first_layer(model: nn.Module) -> StyleLayer:
    """Any adapted layer: all share one context and one list of active adapters."""
    layer = next(adapted_layers(model), None)
    if layer is None:
        raise ValueError(f"model={type(model).__name__} must have a style adapter; add one with get_peft_model")
    return layer
