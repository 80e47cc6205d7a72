"""The best of several rewrites of each text."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from ..data import prompt_ids, room
from ..model import styles_of
from .batches import prompt_of, rows_of
from .rewriting import transfer
from .writing import write

Scores = Callable[[list[str], list[str], list[str]], Float[np.ndarray, " pairs"]]
"""(sources, outputs, labels of styles) -> how good each output is; such as `EditTeacher.score`."""


def transfer_best(  # noqa: PLR0913 - one option a way to draw
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    styles: Any = None,
    *,
    score: Scores,
    samples: int = 8,
    temperature: float = 1.0,
    top_k: int = 20,
    seed: int = 0,
    batch_size: int = 32,
    max_new_tokens: int | None = None,
) -> list[str]:
    """argmax_y score(x, y, s) of each source x, over its greedy rewrite and `samples` drawn ones.

    Of candidates that score alike the earlier wins, the greedy one before all.

    Args:
        model: A model with a style adapter.
        tokenizer: The backbone's.
        sources: Texts; empty ones come back as they are.
        styles: One style for all, or one a source; the default style if left out.
        score: How good a rewrite is. Use nothing here that the results are judged by afterwards.
        samples: Drawn candidates of each source.
        temperature: Divides the logits; higher gives candidates that differ more.
        top_k: How many of the likeliest tokens may be drawn.
        seed: Another one draws other candidates.
        batch_size: Texts a step.
        max_new_tokens: Bound of a rewrite; by default one and a half times the longest prompt, and some.

    Raises:
        ValueError: A style that the adapter lacks, as many styles as neither 1 nor the number of sources, or
            scores that are not one a candidate.
    """
    per_row = rows_of(model, styles, len(sources))
    labels = styles_of(model).labels(per_row)
    greedy = transfer(model, tokenizer, sources, per_row, batch_size=batch_size, max_new_tokens=max_new_tokens)
    prompts = prompt_ids(tokenizer, prompt_of(model), sources)
    rows = [i for i, source in enumerate(sources) if source.strip()]
    drawn = write(
        model,
        tokenizer,
        [sources[i] for i in rows],
        [per_row[i] for i in rows],
        samples=samples,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        row_ids=rows,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens or room(max(map(len, prompts), default=0)),
    )
    candidates = {i: list(dict.fromkeys([greedy[i], *texts])) for i, texts in zip(rows, drawn, strict=True)}
    pairs = [(i, text) for i, texts in candidates.items() for text in texts]
    found = score([sources[i] for i, _ in pairs], [text for _, text in pairs], [labels[i] for i, _ in pairs])
    if len(found) != len(pairs):
        raise ValueError(f"score gave {len(found)} numbers for {len(pairs)} candidates; it must give one for each")
    results, best = greedy, dict.fromkeys(rows, -np.inf)
    for (i, text), value in zip(pairs, found, strict=True):
        if value > best[i]:
            results[i], best[i] = text, value
    return results
