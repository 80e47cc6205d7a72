"""How certain a number is, and whether two systems differ: lines drawn again, swapped between systems, left out.

Lines are grouped by direction, as arrays of row numbers. Each direction is resampled by itself, so that all keep their
sizes; equal seeds draw equal lines, so that the numbers of two systems are paired.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import erfc, sqrt

import numpy as np
from jaxtyping import Float, Int, UInt

Groups = Sequence[Int[np.ndarray, " _"]]
"""The rows of each direction."""

_BLOCKS = 20  # of lines that are left out together


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    """On the lines as they are."""
    low: float
    """2.5 % of what other lines would have given lies below."""
    high: float
    """2.5 % lies above."""

    def to_dict(self) -> dict[str, float]:
        """The numbers by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Difference(Estimate):
    """One system's number less another's on the same lines, with its 95 % interval."""

    p_value: float
    """How often lines without a difference would give one as large, of either sign."""


@dataclass(frozen=True)
class LineSums:
    """f(sum_i S_i), S_i the counts or values of line i: a mean, a ratio of sums, BLEU.

    Intervals are the percentiles of f over lines drawn again with replacement: Koehn (2004), "Statistical Significance
    Tests for Machine Translation Evaluation". Two systems are compared by approximate randomization, which is exact
    under the null hypothesis that they could be swapped: Riezler and Maxwell (2005), "On Some Pitfalls in Automatic
    Evaluation and Significance Testing for MT".
    """

    lines: Float[np.ndarray, "lines counts"]
    """S."""
    of: Callable[[Float[np.ndarray, "samples counts"]], Float[np.ndarray, " samples"]]
    """f, of each row of sums."""
    by_direction: bool = False
    """Whether several directions are averaged, all of one weight; else their lines are one corpus."""

    def estimate(self, groups: Groups, *, samples: int = 1000, seed: int = 0) -> Estimate:
        """The number on the lines of `groups`, with the interval of `samples` draws."""
        return Estimate(self._value(groups), *_interval(self._drawn(groups, samples, seed)))

    def difference(self, other: "LineSums", groups: Groups, *, samples: int = 1000, seed: int = 0) -> Difference:
        """This system's number less the other's, on lines drawn for both alike, and swapped between them."""
        drawn = self._drawn(groups, samples, seed) - other._drawn(groups, samples, seed)
        value = self._value(groups) - other._value(groups)
        null = self._swapped(other, groups, samples, seed)
        as_large = np.count_nonzero(abs(null) >= abs(value) - 1e-9)  # equal ones differ by rounding
        return Difference(value, *_interval(drawn), (as_large + 1) / (samples + 1))

    def _value(self, groups: Groups) -> float:
        """f on the lines as they are."""
        return float(self._of([self.lines[rows].sum(axis=0, keepdims=True) for rows in groups])[0])

    def _drawn(self, groups: Groups, samples: int, seed: int) -> Float[np.ndarray, " samples"]:
        """f on as many lines of each group, drawn with replacement."""
        draws = _draws(tuple(map(len, groups)), samples, seed)
        return self._of([drawn @ self.lines[rows] for drawn, rows in zip(draws, groups, strict=True)])

    def _swapped(self, other: "LineSums", groups: Groups, samples: int, seed: int) -> Float[np.ndarray, " samples"]:
        """The difference after a coin for each line has decided which system wrote which output."""
        random = np.random.default_rng(seed)
        mine, theirs = [], []
        for rows in groups:
            a, b = self.lines[rows], other.lines[rows]
            moved = random.integers(2, size=(samples, len(rows))) @ (b - a)  # [samples, counts]
            mine.append(a.sum(axis=0) + moved)
            theirs.append(b.sum(axis=0) - moved)
        return self._of(mine) - self._of(theirs)

    def _of(self, sums: Sequence[Float[np.ndarray, "samples counts"]]) -> Float[np.ndarray, " samples"]:
        """f of each sample, from its sums by group."""
        if self.by_direction:
            return np.mean([self.of(of_group) for of_group in sums], axis=0)
        return self.of(np.sum(sums, axis=0))


def mean_of(values: Sequence[float] | Sequence[bool] | Float[np.ndarray, " lines"]) -> LineSums:
    """mean_i v_i, over several directions the mean of their means."""
    return LineSums(np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1), ratio, by_direction=True)


def ratio(sums: Float[np.ndarray, "samples 2"]) -> Float[np.ndarray, " samples"]:
    """The first sum over the second, nan where that is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] != 0)


@dataclass(frozen=True)
class TextNumber:
    """f(texts), which is no function of sums over lines: variety.

    Drawn with replacement, texts would repeat and seem less varied than they are. So the interval is the jackknife's,
    value +- 1.96 e with e^2 = (B - 1) / B sum_b (f_b - mean f)^2, f_b the number without the b-th of B = 20 random
    blocks of lines: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 11.
    """

    texts: Sequence[str]
    """One a line."""
    of: Callable[[Sequence[str]], float]
    """f."""

    def estimate(self, groups: Groups, *, samples: int = 1000, seed: int = 0) -> Estimate:
        """The number on the lines of `groups`; `samples` is not used."""
        value, error = self._value(groups), _jackknife_error(self._without_blocks(groups, seed))
        return Estimate(value, value - 1.96 * error, value + 1.96 * error)

    def difference(self, other: "TextNumber", groups: Groups, *, seed: int = 0) -> Difference:
        """This system's number less the other's, the same lines left out of both; p by the normal distribution."""
        value = self._value(groups) - other._value(groups)
        error = _jackknife_error(self._without_blocks(groups, seed) - other._without_blocks(groups, seed))
        p_value = erfc(abs(value) / error / sqrt(2)) if error else float(value == 0)
        return Difference(value, value - 1.96 * error, value + 1.96 * error, p_value)

    def _value(self, groups: Groups) -> float:
        """f on the lines as they are."""
        return self.of([self.texts[row] for row in np.concatenate(groups)])

    def _without_blocks(self, groups: Groups, seed: int) -> Float[np.ndarray, " blocks"]:
        """f without each block of lines."""
        rows = np.random.default_rng(seed).permutation(np.concatenate(groups))
        blocks = np.array_split(rows, min(_BLOCKS, len(rows))) if len(rows) > 1 else []
        return np.array([self.of([self.texts[row] for row in np.setdiff1d(rows, block)]) for block in blocks])


Number = LineSums | TextNumber
"""What is measured on the outputs of one system."""


def difference(one: Number, other: Number, groups: Groups, *, samples: int = 1000, seed: int = 0) -> Difference:
    """One system's number less another's, both of one kind."""
    if isinstance(one, LineSums) and isinstance(other, LineSums):
        return one.difference(other, groups, samples=samples, seed=seed)
    if isinstance(one, TextNumber) and isinstance(other, TextNumber):
        return one.difference(other, groups, seed=seed)
    raise TypeError(f"other={type(other).__name__} must be a {type(one).__name__}; compare numbers of one metric")


def groups_of(styles: Sequence[str] | None, lines: int) -> dict[str, Int[np.ndarray, " _"]]:
    """The rows of each target style, in the order in which the styles first appear; all rows as "" without styles."""
    if styles is None:
        return {"": np.arange(lines)}
    wanted = np.array(styles)
    return {style: np.flatnonzero(wanted == style) for style in dict.fromkeys(styles)}


@lru_cache(maxsize=4)
def _draws(sizes: tuple[int, ...], samples: int, seed: int) -> list[UInt[np.ndarray, "samples _"]]:
    """How often each sample holds each line, by group, drawn with replacement; kept for the next number."""
    random = np.random.default_rng(seed)
    return [
        np.stack(
            [np.bincount(random.integers(size, size=size), minlength=size).astype(np.uint16) for _ in range(samples)]
        )
        for size in sizes
    ]


def _interval(drawn: Float[np.ndarray, " samples"]) -> tuple[float, float]:
    """The middle 95 %; samples without a number, such as the perplexity of nothing, are left out."""
    kept = drawn[~np.isnan(drawn)]
    low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (np.nan, np.nan)
    return float(low), float(high)


def _jackknife_error(numbers: Float[np.ndarray, " blocks"]) -> float:
    """e of `TextNumber`; 0 for a single line, of which nothing can be left out."""
    blocks = len(numbers)
    return float(np.sqrt((blocks - 1) / blocks * ((numbers - numbers.mean()) ** 2).sum())) if blocks else 0.0
