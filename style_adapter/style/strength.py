"""Strength by block: how much of a style each adapted layer takes."""

import re
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_RANGE = re.compile(r"(\d+)-(\d+)")


def layer_strengths(
    layers: Sequence[str], strength: float | int | Mapping[str, float | int]
) -> Float[Tensor, " layers"]:
    """One factor an adapted layer, for its gate; layers that nothing names keep 1, and factors multiply.

    A pattern is a part of a layer's dotted name in which a number may be a range, both ends included: `"layers.0-11"`,
    `"q_proj"`, `"layers.3.mlp"`.

    Args:
        layers: Names of the adapted layers, in the order of their numbers.
        strength: One factor for all, or {pattern: factor}.

    Raises:
        ValueError: A pattern that names no adapted layer.

    Example:
        >>> layer_strengths(["layers.0.q_proj", "layers.1.q_proj"], {"layers.0-0": 0.5, "q_proj": 2.0}).tolist()
        [1.0, 2.0]
    """
    patterns = strength if isinstance(strength, Mapping) else {"": strength}
    factors = torch.ones(len(layers))
    for pattern, factor in patterns.items():
        named = torch.tensor([_names(pattern, layer) for layer in layers], dtype=torch.bool)
        if not named.any():
            example = next(iter(layers), "none here")
            raise ValueError(
                f"strength: {pattern!r} must name an adapted layer, such as {example!r} or a part of it; a range of "
                "blocks is written 'layers.0-11'"
            )
        factors[named] *= factor
    return factors


def names_any(pattern: str, layers: Sequence[str]) -> bool:
    """Whether `pattern` names one of `layers`."""
    return any(_names(pattern, layer) for layer in layers)


def _names(pattern: str, layer: str) -> bool:
    """Whether the parts of `pattern` stand in `layer` one after another."""
    wanted, parts = pattern.split(".") if pattern else [], layer.split(".")
    starts = range(len(parts) - len(wanted) + 1)
    return any(all(_fits(w, parts[start + i]) for i, w in enumerate(wanted)) for start in starts)


def _fits(wanted: str, part: str) -> bool:
    """Whether one part of a name is the wanted one, or a number in the wanted range."""
    span = _RANGE.fullmatch(wanted)
    if span and part.isdigit():
        return int(span[1]) <= int(part) <= int(span[2])
    return wanted == part
