"""A style as a value: an immutable vector of named weights and features, with its arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Style:
    """A point in style space: sum_m w_m * (named style m), plus optional features f [style_dim].

    Supports `+`, `-`, `*` and `/` by a number, and unary `-`. Strength 0 is the frozen backbone exactly; `OFF`, the
    empty sum, is the same and skips the adapter's arithmetic too.
    """

    weights: Mapping[str, int | float] = field(default_factory=dict)
    features: Float[Tensor, "... style_dim"] | None = None  # [style_dim], which the bank checks

    def __post_init__(self) -> None:
        """Keeps a copy of the weights: a style does not change with the dict it was made from."""
        object.__setattr__(self, "weights", dict(self.weights))

    def __add__(self, other: "Style") -> "Style":
        """The sum, name by name."""
        if not isinstance(other, Style):
            return NotImplemented
        names = {**self.weights, **other.weights}
        weights = {n: self.weights.get(n, 0.0) + other.weights.get(n, 0.0) for n in names}
        both = [f for f in (self.features, other.features) if f is not None]
        return Style(weights, torch.stack(both).sum(dim=0) if both else None)

    def __mul__(self, strength: int | float) -> "Style":
        """Every weight and the features times `strength`."""
        if not isinstance(strength, (int, float)):
            return NotImplemented
        features = None if self.features is None else self.features * strength
        return Style({n: w * strength for n, w in self.weights.items()}, features)

    __rmul__ = __mul__

    def __truediv__(self, divisor: int | float) -> "Style":
        """Every weight and the features over `divisor`."""
        return self * (1.0 / divisor)

    def __neg__(self) -> "Style":
        """The opposite style."""
        return self * -1.0

    def __sub__(self, other: "Style") -> "Style":
        """The difference: what `self` has beyond `other`."""
        return self + (-other)

    def __eq__(self, other: object) -> bool:
        """Same names with the same weights, and the same features."""
        if not isinstance(other, Style) or dict(self.weights) != dict(other.weights):
            return False
        if self.features is None or other.features is None:
            return self.features is other.features
        return bool(torch.equal(self.features, other.features))

    def __hash__(self) -> int:
        """Consistent with `==`; features are left to `==`."""
        return hash(frozenset(self.weights.items()))

    def __str__(self) -> str:
        """The mixture as a person writes it."""
        named = " + ".join(f"{w:g}*{n}" if w != 1.0 else n for n, w in self.weights.items())
        return " + ".join(filter(None, [named, "features" if self.features is not None else ""])) or "off"


OFF = Style()
