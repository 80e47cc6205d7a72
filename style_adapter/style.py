"""What a style is: an immutable vector of named weights (and features), its code as tensors, the one in force.

Everything that makes a style is linear, so a mixture, a strength or a difference is plain arithmetic:

>>> bank = StyleBank(("modern", "kjv"))
>>> print(0.7 * bank["kjv"] + 0.3 * bank["modern"])
0.7*kjv + 0.3*modern
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

MIN_SLOTS = 4  # a mixture of up to so many styles keeps one tensor shape, so torch.compile sees one graph


@dataclass(frozen=True, eq=False)
class Style:
    """A point in style space: sum_m w_m * (named style m), plus optional features f [style_dim].

    Supports `+`, `-`, `*` and `/` by a number, and unary `-`. Strength 0 is the frozen backbone exactly; `OFF`, the
    empty sum, is the same and skips the adapter's arithmetic too.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    features: Float[Tensor, " style_dim"] | None = None

    def __add__(self, other: "Style") -> "Style":
        """The sum, name by name."""
        if not isinstance(other, Style):
            return NotImplemented
        names = {**self.weights, **other.weights}
        weights = {n: self.weights.get(n, 0.0) + other.weights.get(n, 0.0) for n in names}
        both = [f for f in (self.features, other.features) if f is not None]
        return Style(weights, torch.stack(both).sum(dim=0) if both else None)

    def __mul__(self, strength: float) -> "Style":
        """Every weight and the features times `strength`."""
        if not isinstance(strength, (int, float)):
            return NotImplemented
        features = None if self.features is None else self.features * strength
        return Style({n: w * strength for n, w in self.weights.items()}, features)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Style":
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


@dataclass(frozen=True)
class StyleCode:
    """A style as tensors, made once a forward pass and read by every layer.

    Attributes:
        ids: Rows of the gate tables, [rows, slots]; `rows` is 1 or the batch.
        weights: Their weights, 0 where a slot is unused.
        features: f, one a row, where the adapter has `style_dim > 0`.
        noise: z, one a row, where the adapter has `noise_dim > 0`.
        repeats: How often `generate` repeats each row (beams, returned sequences).
    """

    ids: Int[Tensor, "rows slots"]
    weights: Float[Tensor, "rows slots"]
    features: Float[Tensor, "rows style_dim"] | None = None
    noise: Float[Tensor, "rows_noise noise_dim"] | None = None
    repeats: int = 1

    def to(self, device: torch.device) -> "StyleCode":
        """The same code on `device`; itself where it is there already."""
        if self.ids.device == device:
            return self
        moved = {n: t.to(device) for n, t in vars(self).items() if isinstance(t, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class StyleBank(Mapping[str, Style]):
    """The styles of one adapter by name, and the one place where anything that names a style becomes a code.

    Args:
        names: One name a row of the gate tables.
        default: The style in force where none is given; the first by default.
        style_dim: Width of the features f.
        noise_dim: Width of the noise z.
        noise_type: gaussian, uniform (in [-1, 1]) or none.
    """

    names: tuple[str, ...]
    default: str | None = None
    style_dim: int = 0
    noise_dim: int = 0
    noise_type: str = "gaussian"

    def __getitem__(self, name: str) -> Style:
        """The named style with weight 1.

        Raises:
            KeyError: No such style; the message lists the known ones.
        """
        if name not in self.names:
            raise KeyError(self._unknown(name))
        return Style({name: 1.0})

    def __iter__(self) -> Iterator[str]:
        """The names in the order of their rows."""
        return iter(self.names)

    def __len__(self) -> int:
        """Number of styles."""
        return len(self.names)

    def _unknown(self, name: object) -> str:
        """The sentence for a name that is not here."""
        known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
        return f"styles={name!r} must be one of the adapter's styles: {known}; check the spelling or add the style"

    def parse(self, spec: Any) -> Style:
        """One style from a `Style`, a name, a row number, {name: weight}, or several aspects at once.

        Aspects are a list of names, or {"text_style": [...], "visual_style": [...]}: their plain sum.

        Raises:
            ValueError: An unknown name, a row out of range, or features of a wrong width.
            TypeError: Something that names no style.
        """
        if isinstance(spec, Style):
            return self._checked(spec)
        if isinstance(spec, str):
            return self._checked(Style({spec: 1.0}))
        if isinstance(spec, int):
            if not 0 <= spec < len(self.names):
                raise ValueError(f"styles={spec} must be in 0..{len(self.names) - 1}; the adapter has no such row")
            return self[self.names[spec]]
        if isinstance(spec, Mapping):
            numbers = {n: w for n, w in spec.items() if isinstance(w, (int, float))}
            aspects = [a for n, a in spec.items() if n not in numbers and a is not None]
            return sum((self.parse(a) for a in aspects), self._checked(Style(numbers)))
        if isinstance(spec, Sequence):
            return sum((self.parse(a) for a in spec), OFF)
        raise TypeError(f"styles={spec!r} must be a name, a Style, a row number, a dict or a list of these")

    def _checked(self, style: Style) -> Style:
        """`style`, if each of its names is here and its features fit."""
        for name in style.weights:
            if name not in self.names:
                raise ValueError(self._unknown(name))
        if style.features is not None and style.features.shape[-1] != self.style_dim:
            raise ValueError(
                f"features of width {style.features.shape[-1]} must have style_dim={self.style_dim}; "
                "use the encoder that the adapter was trained with"
            )
        return style

    def code(self, spec: Any, *, noise: Float[Tensor, "rows_noise noise_dim"] | None = None) -> StyleCode:
        """The code of one style for the batch, or of a list (or LongTensor of row numbers), one a row.

        A code is given back as it is: a batch that was encoded by a collator is not parsed again.

        Raises:
            ValueError: As `parse`, an empty list, row numbers out of range, or noise of a wrong width.
        """
        if noise is not None and noise.shape[-1] != self.noise_dim:
            raise ValueError(
                f"noise of width {noise.shape[-1]} must have noise_dim={self.noise_dim}; set noise_dim in "
                "StyleAdapterConfig or leave the noise out"
            )
        if isinstance(spec, StyleCode):
            return spec if noise is None else replace(spec, noise=noise)
        if isinstance(spec, Tensor):
            return replace(self._code_of_rows(spec), noise=noise)
        rows = [self.parse(row) for row in spec] if isinstance(spec, (list, tuple)) else [self.parse(spec)]
        if not rows:
            raise ValueError("styles=[] must name at least one style; give one for the batch or one a row")
        return replace(self._code_of_styles(rows), noise=noise)

    def _code_of_rows(self, ids: Tensor) -> StyleCode:
        """The code of a LongTensor [batch] of row numbers."""
        if ids.dim() != 1 or ids.is_floating_point() or ids.numel() == 0:
            raise ValueError(
                f"styles of shape {list(ids.shape)}, {ids.dtype} must be a LongTensor [batch] of row numbers"
            )
        if not torch.compiler.is_compiling() and (int(ids.min()) < 0 or int(ids.max()) >= len(self.names)):
            raise ValueError(f"styles: row numbers {ids.tolist()} must be in 0..{len(self.names) - 1}")
        padded = ids.new_zeros(ids.shape[0], self._slots(1))
        padded[:, 0] = ids
        weights = torch.zeros_like(padded, dtype=torch.float32)
        weights[:, 0] = 1.0
        return StyleCode(padded, weights)

    def _code_of_styles(self, rows: Sequence[Style]) -> StyleCode:
        """The code of one `Style` a row, zero-padded to a fixed number of slots."""
        slots = self._slots(max(len(style.weights) for style in rows))
        row_of = {name: i for i, name in enumerate(self.names)} if len(rows) > 1 else None
        ids, weights = torch.zeros(len(rows), slots, dtype=torch.long), torch.zeros(len(rows), slots)
        for i, style in enumerate(rows):
            for slot, (name, weight) in enumerate(style.weights.items()):
                ids[i, slot] = row_of[name] if row_of else self.names.index(name)
                weights[i, slot] = weight
        features = None
        if any(style.features is not None for style in rows):
            zero = torch.zeros(self.style_dim)
            features = torch.stack([zero if style.features is None else style.features.float() for style in rows])
        return StyleCode(ids, weights, features)

    def _slots(self, used: int) -> int:
        """Slots a code has: fixed for usual mixtures, the next power of two for larger ones."""
        return max(min(len(self.names), MIN_SLOTS), 1 << (used - 1).bit_length() if used else 1)

    def default_code(self) -> StyleCode:
        """The code in force where nothing is given."""
        return self.code(self.default or self.names[0])

    def sample_noise(self, rows: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "rows noise_dim"]:
        """z for `rows` rows from the adapter's `noise_type`, fp32 on the CPU; zeros for "none".

        Raises:
            ValueError: The adapter has no noise part.
        """
        if self.noise_dim == 0:
            raise ValueError("noise_dim=0 must be >= 1 to sample noise; set noise_dim in StyleAdapterConfig")
        return _NOISE[self.noise_type]((rows, self.noise_dim), generator)


_NOISE = {
    "gaussian": lambda shape, generator: torch.randn(shape, generator=generator),
    "uniform": lambda shape, generator: torch.rand(shape, generator=generator) * 2 - 1,
    "none": lambda shape, generator: torch.zeros(shape),
}


Codes = Mapping[str, StyleCode | None]  # by adapter; None is OFF

# One mapping for all models and all threads or tasks: each sees the styles it set itself. Never changed in place.
_IN_FORCE: ContextVar[Mapping["StyleContext", Codes]] = ContextVar("style_adapter_in_force", default={})


class StyleContext:
    """What the adapted layers of one model share: the bank of each adapter, and the codes in force.

    The state that `hold` sets lives in a ContextVar: threads and asyncio tasks do not see one another's, and
    nothing outlives the block. Identity is the key, so a deep copy of a model has a context of its own.
    """

    def __init__(self) -> None:
        self.banks: dict[str, StyleBank] = {}
        self._defaults: dict[tuple[StyleBank, torch.device], StyleCode] = {}

    def code(self, adapter: str, device: torch.device) -> StyleCode | None:
        """The code in force for `adapter` on `device`; its default style where none was set; None for OFF."""
        in_force = _IN_FORCE.get().get(self)
        if in_force is not None and adapter in in_force:
            code = in_force[adapter]
            return None if code is None else code.to(device)
        key = (self.banks[adapter], device)
        if key not in self._defaults:
            self._defaults[key] = self.banks[adapter].default_code().to(device)
        return self._defaults[key]

    def in_force(self) -> Codes:
        """The codes that were set, by adapter; empty where every adapter has its default."""
        return _IN_FORCE.get().get(self, {})

    @contextmanager
    def hold(self, codes: Codes) -> Iterator[None]:
        """`codes` are in force inside the block, over what was in force before; restored also after an error."""
        token = _IN_FORCE.set({**_IN_FORCE.get(), self: {**self.in_force(), **codes}})
        try:
            yield
        finally:
            _IN_FORCE.reset(token)

    @contextmanager
    def only(self, codes: Codes) -> Iterator[None]:
        """`codes` and nothing else are in force inside the block: what recomputes a forward later uses this."""
        token = _IN_FORCE.set({**_IN_FORCE.get(), self: codes})
        try:
            yield
        finally:
            _IN_FORCE.reset(token)
