"""A style as a value: an immutable vector of named weights and features, with its arithmetic."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

# A name that no sign of the mixing language, and no number, could be taken for.
_PLAIN = re.compile(r"[^\s\d+\-*/(),\".][^+*/(),\"]*(?<!\s)(?<!\s-)")


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
        """The mixture in the mixing language; a single style of weight 1 is its name."""
        if self.features is None and [*self.weights.values()] == [1.0]:
            return next(iter(self.weights))
        named = " + ".join(f"{w:g}*{quoted(n)}" if w != 1.0 else quoted(n) for n, w in self.weights.items())
        return " + ".join(filter(None, [named, "features" if self.features is not None else ""])) or "off"


def quoted(name: str) -> str:
    """`name` as a part of a mixture, in quotes where it would be read as something else.

    >>> print(quoted("kjv"), quoted("sci-fi"), quoted("rock + roll"))
    kjv sci-fi "rock + roll"
    """
    plain = _PLAIN.fullmatch(name) and name not in ("blend", "off")
    return name if plain else json.dumps(name, ensure_ascii=False)


def blend(*styles: Style) -> Style:
    """sum_i s_i over the sum of all their weights: a mixture as strong as one style, whatever the weights.

    >>> print(blend(Style({"kjv": 7.0}), Style({"modern": 3.0})))
    0.7*kjv + 0.3*modern

    Raises:
        ValueError: Weights whose sum is not above 0, or features, which have no weight.
    """
    mixture = sum(styles, OFF)
    total = sum(mixture.weights.values())
    if mixture.features is not None:
        raise ValueError("blend takes styles without features, which have no weight; add them afterwards")
    if not total > 0:
        raise ValueError(f"blend takes weights whose sum is > 0 and got {total:g}; a difference is written a - b")
    return mixture / total


OFF = Style()
