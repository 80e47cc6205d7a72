"""One option: its default, its help line, its bounds, and what to do about a value outside of them."""

from collections.abc import Callable, Sequence
from dataclasses import field, fields
from typing import Any

BOUNDS: dict[str, Callable[[float], bool]] = {
    "> 0": lambda value: value > 0,
    ">= 0": lambda value: value >= 0,
    ">= 1": lambda value: value >= 1,
    ">= 2": lambda value: value >= 2,
    "in [0, 1]": lambda value: 0 <= value <= 1,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "in (0, 1]": lambda value: 0 < value <= 1,
}


def option(
    default: Any,
    text: str,
    *,
    bounds: str | None = None,
    choices: Sequence[str] | None = None,
    remedy: str = "set it in StyleTrainingArguments",
) -> Any:
    """A dataclass field.

    Args:
        default: Its value where nothing is given.
        text: The help line, which the command line and the documentation repeat.
        bounds: A key of `BOUNDS` that a number must satisfy; None for the value itself always passes.
        choices: The values that a word may have.
        remedy: What the error for another value says to do.
    """
    return field(default=default, metadata={"help": text, "bounds": bounds, "choices": choices, "remedy": remedy})


def check_options(options: Any) -> None:
    """Refuses the first option out of its bounds.

    Raises:
        ValueError: The message names the option, its value, the bound and the remedy.

    >>> from dataclasses import make_dataclass
    >>> check_options(make_dataclass("Rates", [("rate", float, option(2.0, "A share.", bounds="in [0, 1]"))])())
    Traceback (most recent call last):
    ValueError: rate=2.0 must be in [0, 1]; set it in StyleTrainingArguments
    """
    for known in fields(options):
        value, choices, bounds = (
            getattr(options, known.name),
            known.metadata.get("choices"),
            known.metadata.get("bounds"),
        )
        if value is None:
            continue
        if choices is not None and value not in choices:
            raise ValueError(f"{known.name}={value!r} must be one of {', '.join(choices)}")
        if bounds is not None and not BOUNDS[bounds](value):
            raise ValueError(f"{known.name}={value} must be {bounds}; {known.metadata['remedy']}")
