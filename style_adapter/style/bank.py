"""The styles of one adapter by name, and their codes: what names a style becomes tensors here, and only here."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .language import read_mixture
from .mixture import OFF, Style

_SIGNS = re.compile(r'[+\-*/(),"]')
MIN_SLOTS = 4  # a mixture of up to so many styles keeps one tensor shape, so torch.compile sees one graph


@dataclass(frozen=True)
class StyleCode:
    """A style as tensors, made once a forward pass and read by every layer.

    Attributes:
        ids: Rows of the gate tables, [rows, slots]; `rows` is 1 or the batch.
        weights: Their weights, 0 where a slot is unused.
        features: f, one a row, where the adapter has `style_dim > 0`.
        noise: z, one a row, where the adapter has `noise_dim > 0`.
        repeats: How often `generate` may repeat each row, one number each way it does (beams, returned sequences).
        tiled: Whether a batch may hold all rows several times, one block after another, as diffusers' guidance does.
        strength: One factor an adapted layer, by its number; None for 1 everywhere.
        single: Whether each row is known to be the style of its first slot alone, with weight 1: a look-up will do.
    """

    ids: Int[Tensor, "rows slots"]
    weights: Float[Tensor, "rows slots"]
    features: Float[Tensor, "rows style_dim"] | None = None
    noise: Float[Tensor, "rows_noise noise_dim"] | None = None
    repeats: tuple[int, ...] = ()
    tiled: bool = False
    strength: Float[Tensor, " layers"] | None = None
    single: bool = False

    @property
    def rows(self) -> int:
        """How many rows the gate has: 1, or the batch."""
        return max(t.shape[0] for t in (self.ids, self.features, self.noise) if t is not None)

    def to(self, device: torch.device) -> "StyleCode":
        """The same code on `device`; itself where it is there already."""
        if self.ids.device == device:
            return self
        moved: dict[str, Any] = {n: t.to(device) for n, t in vars(self).items() if isinstance(t, Tensor)}
        return replace(self, **moved)

    def weighted(self, factor: Float[Tensor, "rows 1"] | float) -> "StyleCode":
        """The same styles, their weights times a factor."""
        return replace(self, weights=self.weights * factor, single=False)


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
        if name not in self._rows:
            raise KeyError(self._unknown(name))
        return Style({name: 1.0})

    def __iter__(self) -> Iterator[str]:
        """The names in the order of their rows."""
        return iter(self.names)

    def __len__(self) -> int:
        """Number of styles."""
        return len(self.names)

    @property
    def usual(self) -> str:
        """The name of the style in force where nothing is given."""
        return self.default or self.names[0]

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The row of each name; made once, for adapters of many styles."""
        return {name: row for row, name in enumerate(self.names)}

    def _unknown(self, name: object) -> str:
        """The sentence for a name that is not here."""
        known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
        return f"styles={name!r} must be one of the adapter's styles: {known}; check the spelling or add the style"

    def parse(self, spec: Any) -> Style:
        """One style from a `Style`, a name, a mixture in words, a row number, {name: weight}, or several aspects.

        Words: `"0.7*kjv + 0.3*modern"`, `"formal - casual"`, `"blend(7*kjv, 3*modern)"`; see `read_mixture`.

        Aspects are a list of names, or {"text_style": [...], "visual_style": [...]}: their plain sum.

        Raises:
            ValueError: An unknown name, a row out of range, or features of a wrong width.
            TypeError: Something that names no style.
        """
        if isinstance(spec, Style):
            return self._checked(spec)
        if isinstance(spec, str):
            return self[spec] if spec in self._rows else self._read(spec)
        if isinstance(spec, int):
            if not 0 <= spec < len(self.names):
                raise ValueError(f"styles={spec} must be in 0..{len(self.names) - 1}; the adapter has no such row")
            return self[self.names[spec]]
        if isinstance(spec, Mapping):
            return self._parse_mapping(spec)
        if isinstance(spec, Sequence):
            return sum((self.parse(a) for a in spec), OFF)
        raise TypeError(f"styles={spec!r} must be a name, a Style, a row number, a dict or a list of these")

    def _read(self, text: str) -> Style:
        """A mixture in words."""
        if not _SIGNS.search(text) and text != str(OFF):
            raise ValueError(self._unknown(text))
        return read_mixture(
            text,
            is_known=self._rows.__contains__,
            unknown=lambda name: self._unknown(name).removeprefix("styles="),
        )

    def _parse_mapping(self, spec: Mapping[str, Any]) -> Style:
        """{name: weight} or {"text_style": [...]}; None, as a data set fills in for an absent key, is skipped."""
        given = {key: value for key, value in spec.items() if value is not None}
        if not given:
            raise ValueError(f"styles={spec!r} must name at least one style; use OFF for the frozen backbone")
        numbers = {name: weight for name, weight in given.items() if isinstance(weight, (int, float))}
        for key in given:
            if key not in numbers and not key.endswith("style"):
                raise ValueError(
                    f"styles={spec!r}: the key {key!r} must be an adapter of the model, a style with a number, or an "
                    "aspect such as 'text_style'; check the spelling"
                )
        aspects = [self.parse(value) for key, value in given.items() if key not in numbers]
        return sum(aspects, self._checked(Style(numbers)))

    def _checked(self, style: Style) -> Style:
        """`style`, if each of its names is here and its features fit."""
        for name in style.weights:
            if name not in self._rows:
                raise ValueError(self._unknown(name))
        if style.features is not None and style.features.shape != (self.style_dim,):
            raise ValueError(
                f"features of shape {list(style.features.shape)} must be [style_dim] = [{self.style_dim}]; use the "
                "encoder that the adapter was trained with, and a list of styles for one a row"
            )
        return style

    def labels(self, specs: Sequence[Any]) -> list[str]:
        """Each style written as a mixture, or as its name alone: what a judge is taught and asked, and `parse` reads.

        >>> bank = StyleBank(("formal", "casual"))
        >>> bank.labels(["formal", {"text_style": ["casual"]}, {"formal": 0.5, "casual": -1}])
        ['formal', 'casual', '0.5*formal + -1*casual']
        >>> bank.parse("0.5*formal + -1*casual") == 0.5 * bank["formal"] - bank["casual"]
        True
        """
        return [str(self.parse(spec)) for spec in specs]

    def code(self, spec: Any, *, noise: Float[Tensor, "... noise_dim"] | None = None) -> StyleCode:
        """The code of one style for the batch, or of a list (or LongTensor of row numbers), one a row.

        A code is given back as it is: a batch that was encoded by a collator is not parsed again.

        Raises:
            ValueError: As `parse`, an empty list, row numbers out of range, or noise of a wrong shape.
        """
        code = self._code(spec)
        return code if noise is None else replace(code, noise=self._checked_noise(noise, code.ids.shape[0]))

    def _code(self, spec: Any) -> StyleCode:
        """The code of `spec` without noise."""
        if isinstance(spec, StyleCode):
            return spec
        if isinstance(spec, Tensor):
            return self._code_of_rows(spec)
        rows = self.rows(spec)
        if not rows:
            raise ValueError("styles=[] must name at least one style; give one for the batch or one a row")
        return self._code_of_styles(rows)

    def _checked_noise(self, noise: Tensor, rows: int) -> Tensor:
        """`noise`, if it has the adapter's width and one row for all styles or one for each."""
        if noise.dim() == 2 and noise.shape[1] == self.noise_dim and (rows == 1 or noise.shape[0] in (1, rows)):
            return noise
        given, allowed = list(noise.shape), "rows" if rows == 1 else f"1 or {rows}"
        raise ValueError(
            f"noise of shape {given} must be [{allowed}, noise_dim] = [{allowed}, {self.noise_dim}]; set noise_dim in "
            "StyleAdapterConfig, or leave the noise out"
        )

    def rows(self, spec: Any, count: int | None = None) -> list[Style]:
        """The styles that `spec` names: one a row of any sequence (a column of a data set too), else one.

        With `count` there are exactly so many: one style stands for all rows.

        Raises:
            ValueError: A number of styles that is neither 1 nor `count`, or an unknown style.
        """
        listed = isinstance(spec, Sequence) and not isinstance(spec, str)
        styles = [self.parse(row) for row in spec] if listed else [self.parse(spec)]
        if count is not None and len(styles) == 1:
            return styles * count
        if count is not None and len(styles) != count:
            raise ValueError(f"styles: {len(styles)} styles for {count} rows; give one style for all or one a row")
        return styles

    def _code_of_rows(self, ids: Tensor) -> StyleCode:
        """The code of a LongTensor [batch] of row numbers."""
        if ids.dim() != 1 or ids.dtype not in (torch.int32, torch.int64) or ids.numel() == 0:
            raise ValueError(
                f"styles of shape {list(ids.shape)}, {ids.dtype} must be a LongTensor [batch] of row numbers"
            )
        if not torch.compiler.is_compiling() and (int(ids.min()) < 0 or int(ids.max()) >= len(self.names)):
            raise ValueError(f"styles: row numbers {ids.tolist()} must be in 0..{len(self.names) - 1}")
        padded = ids.new_zeros(ids.shape[0], self._slots(1))
        padded[:, 0] = ids
        weights = torch.zeros_like(padded, dtype=torch.float32)
        weights[:, 0] = 1.0
        return StyleCode(padded, weights, single=True)

    def _code_of_styles(self, rows: Sequence[Style]) -> StyleCode:
        """The code of one `Style` a row, zero-padded to a fixed number of slots."""
        slots = self._slots(max(len(style.weights) for style in rows))
        unused = [[0] * (slots - len(style.weights)) for style in rows]
        ids = [[*map(self._rows.__getitem__, row.weights), *rest] for row, rest in zip(rows, unused, strict=True)]
        weights = [[*row.weights.values(), *rest] for row, rest in zip(rows, unused, strict=True)]
        single = all([*row.weights.values()] == [1.0] for row in rows)
        numbers = torch.tensor(ids), torch.tensor(weights, dtype=torch.float32)
        return StyleCode(*numbers, self._features(rows), single=single)

    def _features(self, rows: Sequence[Style]) -> Float[Tensor, "rows style_dim"] | None:
        """The features of each row, zero where it has none; None where no row has any."""
        given = next((style.features for style in rows if style.features is not None), None)
        if given is None:
            return None
        zero = torch.zeros_like(given)  # on the device of the encoder that made them
        return torch.stack([zero if style.features is None else style.features for style in rows])

    def _slots(self, used: int) -> int:
        """Slots a code has: fixed for usual mixtures, the next power of two for larger ones."""
        usual = min(len(self.names), MIN_SLOTS)
        return usual if used <= usual else 1 << (used - 1).bit_length()

    def default_code(self) -> StyleCode:
        """The code in force where nothing is given."""
        return self.code(self.usual)

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
