"""Finding the adapted layers of any module, also where PEFT drops the tuner; walked once until they change."""

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

from torch import nn

from ..layers import StyleLayer
from ..style import StyleContext


@dataclass(frozen=True)
class Adapted:
    """What one walk through a model finds.

    Attributes:
        layers: The adapted layers, in module order.
        first: One of them for each context: adapters that were injected into parts of a model apart have one each.
        holders: The modules around an adapted layer, each with the context of the first one inside; weakly, for the
            model is one of them and what is found must not keep it alive.
        merged: Whether a layer is merged.
    """

    layers: tuple[StyleLayer, ...]
    first: dict[StyleContext, StyleLayer]
    holders: tuple[tuple[ref[nn.Module], StyleContext], ...]
    merged: bool


_found: WeakKeyDictionary[nn.Module, tuple[int, Adapted]] = WeakKeyDictionary()


def find_adapted(model: nn.Module) -> Adapted:
    """What `model` holds; a walk only where a layer was adapted, merged, copied or taken away since the last one.

    Raises:
        ValueError: `model` has no adapted layer.
    """
    latest = StyleContext.changes  # before the walk: what changes meanwhile makes it old
    walked, found = _found.get(model, (-1, None))
    if found is None or walked != latest:
        found = _walk(model)
        if model not in found.layers:
            _found[model] = latest, found
    if not found.layers:
        raise ValueError(f"model={type(model).__name__} must have a style adapter; add one with get_peft_model")
    return found


def _walk(model: nn.Module) -> Adapted:
    """Goes through all modules once."""
    modules = dict(model.named_modules())
    layers = {name: module for name, module in modules.items() if isinstance(module, StyleLayer)}
    first: dict[StyleContext, StyleLayer] = {}
    holders: dict[str, StyleContext] = {}
    for name, layer in layers.items():
        first.setdefault(layer.style_context, layer)
        parts = name.split(".")
        for end in range(len(parts)):
            holders.setdefault(".".join(parts[:end]), layer.style_context)
    around = tuple((ref(modules[name]), context) for name, context in holders.items())
    return Adapted(tuple(layers.values()), first, around, any(layer.merged_adapters for layer in layers.values()))


def adapted_layers(model: nn.Module) -> Iterator[StyleLayer]:
    """The adapted layers of `model`, in module order; none is no error, and nothing is remembered."""
    return (module for module in model.modules() if isinstance(module, StyleLayer))
