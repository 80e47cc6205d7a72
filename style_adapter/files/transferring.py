"""Big files and data sets rewritten, by processes or on Ray."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..model import Strength
from .beginning import Transferred
from .job import Job, absolute
from .on_ray import make_on_ray
from .processes import make_in_processes

ENGINES: dict[str, Callable[[Job, int | None], Transferred]] = {"processes": make_in_processes, "ray": make_on_ray}


def transfer_files(  # noqa: PLR0913 - one option a way to read, to rewrite or to write
    adapter: str,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    style: Any = None,
    column: str = "text",
    style_column: str | None = None,
    output_column: str = "rewrite",
    split: str = "train",
    subset: str | None = None,
    format: str | None = None,
    shard_rows: int = 10_000,
    strength: Strength = 1.0,
    candidates: int = 0,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    base: str | None = None,
    engine: str = "processes",
    workers: int | None = None,
) -> Transferred:
    """A file or data set of any size rewritten into a folder, shard by shard, in the order of its rows.

    At most one shard is held. The folder has files `part-00000.*`, each whole or not there, and a hidden manifest; the
    same call goes on where a run was killed. Under `accelerate launch` or torchrun shard i belongs to process
    i % processes, whatever their number was before. An output is, byte for byte, what one uninterrupted process
    writes on the same machine with the same batch size.

    Args:
        adapter: Folder or hub id.
        input: A .parquet file; a .csv, .jsonl or .txt one, maybe with .gz behind it; a data set of the hub, or a
            folder, as `datasets.load_dataset` or `Dataset.save_to_disk` has them.
        output: A folder.
        style: One style for all, as `StyleBank.parse` takes it; the default one if left out.
        column: Whose texts are rewritten. Empty ones and nulls come back as they are.
        style_column: Where the style of each row is: a name, a mixture in words, a dict; empty is the default one.
        output_column: The name of the new column, behind all others.
        split: Of a data set.
        subset: Of a data set that has several configurations.
        format: parquet, csv, jsonl or txt; that of the input if left out, and of data sets parquet.
        shard_rows: Rows a file.
        strength: A factor on the style, as in `transfer`.
        candidates: Drafts drawn of each text, of which the adapter keeps what it scores best; 0: the greedy rewrite.
        num_beams: Beams of the search; 1 is greedy.
        max_new_tokens: Bound of a rewrite; by default one and a half times the longest text of its batch, and some.
        seed: Another one draws other candidates.
        batch_size: Texts a step, sorted by length within a shard.
        base: Folder or hub id of the backbone, where the recorded one is not at hand.
        engine: processes, or ray: the same on the cluster that `ray.init` finds, whose nodes must share the folders.
        workers: Of ray, how many; one a GPU if left out, or one.

    Raises:
        ValueError: A column that is missing or in the way, an input without rows or of an unknown kind, an option out
            of its bounds, or a folder that holds another run.
        FileNotFoundError: No such input.

    Example:
        >>> transfer_files("me/kjv-style", "big.parquet", "out/", style="kjv")  # doctest: +SKIP
    """
    job = Job(
        absolute(adapter),
        absolute(os.fspath(input)),
        Path(output).absolute(),
        style=style,
        column=column,
        style_column=style_column,
        output_column=output_column,
        split=split,
        subset=subset,
        format=format,
        shard_rows=shard_rows,
        strength=strength,
        candidates=candidates,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
        base=None if base is None else absolute(base),
    )
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} must be one of {', '.join(ENGINES)}")
    return ENGINES[engine](job, workers)
