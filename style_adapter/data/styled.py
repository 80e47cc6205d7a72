"""The style of each row beside any other collator's batch."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class StyleCollator:
    """Any collator's batch, and beside it the style of each row: `batch["styles"]`, which the model's forward takes.

    For trainers that are not ours, transformers' and TRL's, whose collators drop a column of names or trip over it.
    They remove the column before any collator sees it unless their arguments say `remove_unused_columns=False`. A
    batch of n times as many rows has the styles n times, one block after another: TRL's preference trainers lay out
    [chosen..., rejected...].

    Args:
        collate: Makes the batch of everything else; it gets the rows without their style.
        column: The column of styles, each a name, a mixture {name: weight} or whatever else `StyleBank.parse` takes.

    Example:
        >>> from transformers import default_data_collator
        >>> batch = StyleCollator(default_data_collator)([{"input_ids": [5, 6], "style": "kjv"}])
        >>> batch["input_ids"].tolist(), batch["styles"]
        ([[5, 6]], ['kjv'])
    """

    collate: Callable[[list[dict[str, Any]]], MutableMapping[str, Any]]
    column: str = "style"

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch of `collate` and `styles`, a list of one style a row of the batch.

        Raises:
            ValueError: A row without a style, or a batch whose rows are not the given ones, once or several times
                over: packed or padding-free, where one row holds several texts.
        """
        styles = [row.get(self.column) for row in rows]
        if None in styles:
            raise ValueError(
                f"{self.column!r} must be in each row, and row {styles.index(None)} of the batch has "
                f"{', '.join(rows[styles.index(None)])}; set remove_unused_columns=False in the trainer's arguments, "
                "and fill the column"
            )
        batch = self.collate([{name: value for name, value in row.items() if name != self.column} for row in rows])
        lengths = (len(value) for value in batch.values() if isinstance(value, Tensor) and value.dim())
        length = next(lengths, len(rows))
        if length % len(rows):
            raise ValueError(
                f"styles: {len(rows)} styles for a batch of {length} rows; set packing=False and padding_free=False: "
                "texts that share a row share its style"
            )
        return {**batch, "styles": styles * (length // len(rows))}
