"""What is to be rewritten, how, and where to."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..model import Strength

FORMATS = ("parquet", "csv", "jsonl", "txt")
# What may differ when a run is taken up: the input and the adapter are told by what they hold, the others say where
# things are and how fast they go.
_FREE = ("adapter", "input", "output", "split", "subset", "batch_size")


@dataclass(frozen=True)
class Job:
    """Every option of a run; see `transfer_files`, which documents them."""

    adapter: str
    input: str
    output: Path
    style: Any = None
    column: str = "text"
    style_column: str | None = None
    output_column: str = "rewrite"
    split: str = "train"
    subset: str | None = None
    format: str | None = None
    shard_rows: int = 10_000
    strength: Strength = 1.0
    candidates: int = 0
    num_beams: int = 1
    max_new_tokens: int | None = None
    seed: int = 0
    batch_size: int = 32
    base: str | None = None

    def __post_init__(self) -> None:
        """Refuses what no input could be rewritten by."""
        for name, least in (("shard_rows", 1), ("batch_size", 1), ("num_beams", 1), ("candidates", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be >= {least}; leave it out for the default")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} must be >= 1; leave it out for the default")
        if self.candidates and self.num_beams > 1:
            raise ValueError(f"num_beams={self.num_beams} must be 1 with candidates, which are drawn; leave one out")
        if self.style is not None and self.style_column is not None:
            raise ValueError(
                f"style={self.style!r} must be left out with style_column={self.style_column!r}, which has the style "
                "of each row; leave one out"
            )
        if self.format not in (None, *FORMATS):
            raise ValueError(
                f"format={self.format!r} must be one of {', '.join(FORMATS)}; leave it out for the input's"
            )
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"output={str(self.output)!r} is a file and must be a folder; name another")

    def options(self) -> dict[str, Any]:
        """All that a rewritten row depends on, but for the input, the adapter's weights and the style."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in (*_FREE, "style")}


def absolute(name: str) -> str:
    """`name` as it is found from any folder: a path where there is something, else a name of the hub."""
    return os.path.abspath(name) if os.path.exists(name) else name
