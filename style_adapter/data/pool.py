"""The texts of each style of a data set, from which one is drawn for a row."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets


@dataclass(frozen=True)
class StylePool:
    """The texts of each style of a data set: which other style a row may be asked for, and a real text of a style.

    Attributes:
        texts: {label of a style: ids of its rows}, in the order in which the styles first appear.
        styles: {label: the style as the data set writes it}.
        targets: Token ids of each row's text.
    """

    texts: Mapping[str, Sequence[int]]
    styles: Mapping[str, Any]
    targets: Sequence[Sequence[int]]

    @classmethod
    def of(cls, rows: datasets.Dataset, labels: Sequence[str]) -> "StylePool":
        """The pool of tokenised `rows`, `labels` naming the style of each; those that are `synthetic` stay out."""
        made = rows["synthetic"] if "synthetic" in rows.column_names else [False] * len(rows)
        texts: dict[str, list[int]] = defaultdict(list)
        for row, (label, by_program) in enumerate(zip(labels, made, strict=True)):
            if not by_program:
                texts[label].append(row)
        styles = {label: rows[found[0]]["style"] for label, found in texts.items()}
        return cls(dict(texts), styles, rows["target_ids"])

    def check_others(self) -> None:
        """Refuses a pool in which there is nothing to rewrite a text to.

        Raises:
            ValueError: Fewer than two styles.
        """
        if len(self.texts) < 2:
            raise ValueError(
                f"train_dataset has texts of {list(self.texts)} and must have at least 2 styles to rewrite one into "
                "the other; add texts of another style, or set task='generation' to write in one"
            )

    def other(self, label: str, seed: int) -> str:
        """A style that is not `label`, by the number `seed`."""
        others = [known for known in self.texts if known != label]
        return others[seed % len(others)]

    def exemplar(self, label: str, seed: int) -> int:
        """A row of the style `label`, by the number `seed`."""
        return self.texts[label][seed % len(self.texts[label])]
