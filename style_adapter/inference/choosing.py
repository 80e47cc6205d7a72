"""The best of several rewrites of each text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from ..data import prompt_ids, room
from ..model import Strength, styles_of
from .batches import prompt_of, rows_of
from .ranking import Scores, default_score
from .rewriting import transfer
from .writing import write


@dataclass(frozen=True)
class Choice:
    """The best of the candidates of a text.

    Attributes:
        text: The candidate.
        score: How good it is.
    """

    text: str
    score: float


def ranked(
    sources: Sequence[str], candidates: Sequence[Sequence[str]], styles: Sequence[str], score: Scores
) -> list[list[Choice]]:
    """The different candidates y of each source x, by score(x, y, s), best first; of two that score alike the earlier.

    Args:
        sources: x.
        candidates: Y(x), one at least for each source.
        styles: s, the label of each.
        score: How good a candidate is.

    Raises:
        ValueError: A source without a candidate, or scores that are not one a candidate.
    """
    kinds = [list(dict.fromkeys(texts)) for texts in candidates]
    if not all(kinds):
        raise ValueError(f"candidates[{kinds.index([])}] is empty and must hold a text at least; add the source itself")
    pairs = [(i, text) for i, texts in enumerate(kinds) for text in texts]
    found = score([sources[i] for i, _ in pairs], [text for _, text in pairs], [styles[i] for i, _ in pairs])
    if len(found) != len(pairs):
        raise ValueError(f"score gave {len(found)} numbers for {len(pairs)} candidates; it must give one for each")
    scores = iter(found)
    choices = [[Choice(text, float(next(scores))) for text in texts] for texts in kinds]
    return [sorted(each, key=lambda choice: -choice.score) for each in choices]


def choose(
    sources: Sequence[str], candidates: Sequence[Sequence[str]], styles: Sequence[str], score: Scores
) -> list[Choice]:
    """argmax_{y in Y(x)} score(x, y, s) of each source x: the first that `ranked`, whose options it has, gives."""
    return [choices[0] for choices in ranked(sources, candidates, styles, score)]


def drafts(  # noqa: PLR0913 - one option a way to draw
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    styles: Any = None,
    *,
    strength: Strength = 1.0,
    samples: int = 8,
    temperature: float | int = 1.0,
    noise_scale: float | int = 1.0,
    top_k: int = 20,
    seed: int = 0,
    row_ids: Sequence[int] | None = None,
    batch_size: int = 32,
    max_new_tokens: int | None = None,
) -> list[list[str]]:
    """The greedy rewrite of each source and `samples` drawn ones; of an empty one itself. Options: `transfer_best`."""
    per_row = rows_of(model, styles, len(sources))
    bounds: dict[str, Any] = {"strength": strength, "batch_size": batch_size, "max_new_tokens": max_new_tokens}
    greedy = transfer(model, tokenizer, sources, per_row, **bounds)
    found = [[text] for text in greedy]
    if samples == 0:
        return found
    if not max_new_tokens:
        prompts = prompt_ids(tokenizer, prompt_of(model), sources)
        bounds["max_new_tokens"] = room(max(map(len, prompts), default=0))
    rows = [i for i, source in enumerate(sources) if source.strip()]
    drawn = write(
        model,
        tokenizer,
        [sources[i] for i in rows],
        [per_row[i] for i in rows],
        samples=samples,
        temperature=temperature,
        noise_scale=noise_scale,
        top_k=top_k,
        seed=seed,
        row_ids=rows if row_ids is None else [row_ids[i] for i in rows],
        **bounds,
    )
    for i, texts in zip(rows, drawn, strict=True):
        found[i] += texts
    return found


def transfer_best(  # noqa: PLR0913 - one option a way to draw
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    styles: Any = None,
    *,
    score: Scores | None = None,
    strength: Strength = 1.0,
    samples: int = 8,
    temperature: float | int = 1.0,
    noise_scale: float | int = 1.0,
    top_k: int = 20,
    seed: int = 0,
    row_ids: Sequence[int] | None = None,
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
        score: How good a rewrite is; the adapter's own `default_score` if left out. Use nothing here that the results
            are judged by afterwards.
        strength: A factor on the style, as in `transfer`.
        samples: Drawn candidates of each source.
        temperature: Divides the logits; higher gives candidates that differ more.
        noise_scale: What the noise of the drawn ones is multiplied by, where the adapter has `noise_dim`.
        top_k: How many of the likeliest tokens may be drawn.
        seed: Another one draws other candidates.
        row_ids: What the draws of each source depend on, beside the seed; its place if left out.
        batch_size: Texts a step.
        max_new_tokens: Bound of a rewrite; by default one and a half times the longest prompt, and some.

    Raises:
        ValueError: A style that the adapter lacks, as many styles as neither 1 nor the number of sources, or
            scores that are not one a candidate.
    """
    per_row = rows_of(model, styles, len(sources))
    found = drafts(
        model,
        tokenizer,
        sources,
        per_row,
        strength=strength,
        samples=samples,
        temperature=temperature,
        noise_scale=noise_scale,
        top_k=top_k,
        seed=seed,
        row_ids=row_ids,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    labels, rows = styles_of(model).labels(per_row), [i for i, source in enumerate(sources) if source.strip()]
    told = score or default_score(model, tokenizer, batch_size=batch_size)
    chosen = choose([sources[i] for i in rows], [found[i] for i in rows], [labels[i] for i in rows], told)
    results = list(sources)
    for i, choice in zip(rows, chosen, strict=True):
        results[i] = choice.text
    return results
