"""The mixing language: styles and their arithmetic as a line of text, such as `0.7*kjv + 0.3*modern`."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from .mixture import OFF, Style, blend

_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?![\w.])")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_SPACE = re.compile(r"\s*")
_ENDS = re.compile(r"[\s+\-*/(),]|$")  # where a name may end


@dataclass
class _Reader:
    """A line, how far it has been read, and which names are known."""

    text: str
    is_known: Callable[[str], bool]
    unknown: Callable[[str], str]
    place: int = 0

    def whole(self) -> Style:
        """The line as one style."""
        style = self.sum()
        if self.place < len(self.text):
            raise self.wrong(
                f"{self.text[self.place]!r} must be one of + - * / or the end; names with such signs are quoted"
            )
        return style

    def sum(self) -> Style:
        """`[-] term {(+ | -) term}`."""
        style = self.product()
        while sign := self.sign("+-"):
            term = self.product()
            style = style + term if sign == "+" else style - term
        return style

    def product(self) -> Style:
        """`factor {(* | /) factor}`: numbers, and one style."""
        self.take(self.place)
        start, value = self.place, self.factor()
        while sign := self.sign("*/"):
            place, other = self.place, self.factor()
            value = self.times(value, other, place) if sign == "*" else self.over(value, other, place)
        if not isinstance(value, Style):
            raise self.wrong(f"{self.text[start : self.place].strip()!r} must be followed by * and a style", start)
        return value

    def times(self, value: Style | float, other: Style | float, place: int) -> Style | float:
        """The product, of which one side at least is a number."""
        if isinstance(other, float):
            return value * other
        if isinstance(value, float):
            return value * other
        raise self.wrong("a style must be multiplied by a number; styles are added", place)

    def over(self, value: Style | float, other: Style | float, place: int) -> Style | float:
        """The quotient by a number."""
        if isinstance(other, Style) or other == 0:
            raise self.wrong("what a style is divided by must be a number other than 0", place)
        return value / other

    def factor(self) -> Style | float:
        """A sign and a factor, `(sum)`, a number, a name, or `blend(sum, ...)`."""
        if sign := self.sign("+-"):
            return self.factor() * (1.0 if sign == "+" else -1.0)
        if self.sign("("):
            style = self.sum()
            self.expect(")")
            return style
        if quoted := _QUOTED.match(self.text, self.place):
            return self.named(quoted.end(), json.loads(quoted[0]))
        return self.number_or_name()

    def number_or_name(self) -> Style | float:
        """A known name, the longest that stands here: `sci-fi` is one style where there is one, else a difference."""
        start, number = self.place, _NUMBER.match(self.text, self.place)
        ends = [found.start() for found in _ENDS.finditer(self.text, start)]
        for end in reversed(ends):
            if self.is_known(self.text[start:end]) and not (number and number.end() == end):
                return self.named(end, self.text[start:end])
        if number:
            self.take(number.end())
            return float(number[0])
        word = self.text[start : ends[0]]
        if word == "blend":
            return self.blended(start)
        if word == str(OFF):
            self.take(ends[0])
            return OFF
        if not word:
            raise self.wrong("a style or a number must stand here")
        raise self.wrong(self.unknown(word))

    def blended(self, start: int) -> Style:
        """`blend(sum, ...)`."""
        self.take(start + len("blend"))
        self.expect("(")
        parts = [self.sum()]
        while self.sign(","):
            parts.append(self.sum())
        self.expect(")")
        try:
            return blend(*parts)
        except ValueError as error:
            raise self.wrong(str(error), start) from error

    def named(self, end: int, name: str) -> Style:
        """The style `name`, which ends at `end`."""
        if not self.is_known(name):
            raise self.wrong(self.unknown(name))
        self.take(end)
        return Style({name: 1.0})

    def sign(self, signs: str) -> str:
        """The next sign, if it is one of `signs`; else nothing is read but white space."""
        self.take(self.place)
        found = self.text[self.place : self.place + 1]
        if not found or found not in signs:
            return ""
        self.take(self.place + 1)
        return found

    def expect(self, sign: str) -> None:
        """Reads one sign that must stand here."""
        if not self.sign(sign):
            raise self.wrong(f"{sign!r} must stand here")

    def take(self, place: int) -> None:
        """Goes on behind `place` and white space."""
        self.place = _SPACE.match(self.text, place).end()  # type: ignore[union-attr]  # matches anything

    def wrong(self, reason: str, place: int | None = None) -> ValueError:
        """What is said of the line, at a column."""
        column = (self.place if place is None else place) + 1
        return ValueError(f"styles={self.text!r}, column {column}: {reason}")


def read_mixture(text: str, *, is_known: Callable[[str], bool], unknown: Callable[[str], str]) -> Style:
    """The style that a line of the mixing language writes.

    A sum or difference of styles with numbers before or behind them: `0.7*kjv + 0.3*modern`, `formal - casual`,
    `(formal + kjv) / 2`; `blend(7*kjv, 3*modern)`, whose weights are made to sum to 1; `off`. A name that holds signs
    of the language is quoted, `2 * "rock'n'roll (live)"`, unless a style has just that name: the longest name wins.

    Args:
        text: The line.
        is_known: Whether a name is that of a style.
        unknown: What to say of one that is not.

    Raises:
        ValueError: A name that is not known, or what is no mixture; the message has the column.

    Example:
        >>> print(read_mixture("-(a - 2*b) / 4", is_known="ab".__contains__, unknown=str))
        -0.25*a + 0.5*b
        >>> read_mixture("a + 3", is_known="ab".__contains__, unknown=str)
        Traceback (most recent call last):
        ValueError: styles='a + 3', column 5: '3' must be followed by * and a style
    """
    reader = _Reader(text, is_known, unknown)
    reader.take(0)
    try:
        return reader.whole()
    except RecursionError as error:
        raise reader.wrong("signs and brackets are nested too deeply; write a sum") from error
