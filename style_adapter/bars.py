"""How far long work has come, where somebody looks at a terminal."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm.auto import tqdm

PATIENCE = 2.0  # seconds for which nobody wonders
Batch = TypeVar("Batch", bound=Sequence[object])


def with_bar(batches: Iterable[Batch], what: str, count: int | None, *, done: int = 0) -> Iterator[Batch]:
    """`batches` as they are, `count` things in all; a bar over them once they take longer than `PATIENCE`.

    It goes when they are through. Of several processes the first one shows it.

    Args:
        batches: Each counts as many things as it is long, once the next one is asked for.
        what: What is done to them.
        count: None where nobody knows.
        done: How many of them were through before; they count for no rate.

    >>> [*with_bar([[1, 2], [3]], "counting", 3)]
    [[1, 2], [3]]
    """
    silent = None if os.environ.get("LOCAL_RANK", "0") == "0" else True  # None: where the output is no terminal
    with tqdm(total=count, initial=done, desc=what, unit="text", delay=PATIENCE, leave=False, disable=silent) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def in_batches(rows: Sequence[int], size: int, what: str) -> Iterator[list[int]]:
    """`rows`, `size` at a time, under a bar.

    >>> [*in_batches([4, 2, 7], 2, "reading")]
    [[4, 2], [7]]
    """
    return with_bar((list(rows[start : start + size]) for start in range(0, len(rows), size)), what, len(rows))
