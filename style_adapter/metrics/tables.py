"""A Markdown table, aligned as plain text too."""

from collections.abc import Sequence


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """The table, its first `names` columns set to the left and the numbers after them to the right.

    >>> print(markdown_table(["to", "run", "BLEU"], [["kjv", "copy", "47.5"]], names=2))
    | to  | run  | BLEU |
    | --- | ---- | ---: |
    | kjv | copy | 47.5 |

    Raises:
        ValueError: no row, or one that is not as long as the head.
    """
    if not rows:
        raise ValueError("rows=[] must hold at least one row; there is nothing to show")
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"row {list(row)} must have one cell for each of {list(head)}; fill it with empty ones")
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    sides = ["<" if place < names else ">" for place in range(len(head))]
    rules = ["-" * width if side == "<" else "-" * (width - 1) + ":" for side, width in zip(sides, widths, strict=True)]
    padded = [
        [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)]
        for row in (head, rules, *rows)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
