"""What every metric does with its inputs: lines that must pair up, optional packages that must be there."""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

_DISTRIBUTIONS = {"sklearn": "scikit-learn", "sentence_transformers": "sentence-transformers"}


def check_lines(**columns: Sequence[Any]) -> None:
    """Raise unless each named column is a list, not a string, and all have the same length above 0."""
    (first, texts), *others = columns.items()
    for name, column in columns.items():
        if isinstance(column, str):
            raise TypeError(f"{name}={column!r} must be a list with one entry a line; pass [{column!r}]")
    if len(texts) == 0:
        raise ValueError(f"{first}=[] must hold at least one line; pass a list of strings")
    for name, column in others:
        if len(column) != len(texts):
            raise ValueError(
                f"{name} of length {len(column)} must be as long as {first}, {len(texts)}; give one a line"
            )


def extra(module: str, needed_by: str) -> ModuleType:
    """The module of an optional dependency, or an ImportError that says what to install."""
    try:
        return import_module(module)
    except ImportError as missing:
        name = module.partition(".")[0]
        package = _DISTRIBUTIONS.get(name, name)
        raise ImportError(f"{needed_by} needs {package}; pip install 'style_adapter[eval]'") from missing
