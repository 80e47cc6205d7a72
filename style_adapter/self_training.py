"""Best-of-n self-training: a model learns from the best of its own drafts."""

from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from .inference import Choice, Scores, drafts, ranked
from .model import styles_of
from .teacher import ComparedPair, in_turn, pairs_of


def best_pairs(  # noqa: PLR0913 - one option a way to draw
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    styles: Sequence[Any],
    *,
    score: Scores,
    wanted: Sequence[Any] | None = None,
    others: Sequence[Sequence[str]] | None = None,
    samples: int = 8,
    least: float = 0.0,
    both_ways: bool = True,
    top_k: int = 20,
    seed: int = 0,
    batch_size: int = 64,
) -> list[ComparedPair]:
    """x -> y with y = argmax_{Y(x)} score(x, y, s), for each text x where that is > `least` and y is not x; and y -> x.

    Y(x) are the greedy rewrite of x, `samples` drawn ones and `others`. A model that is trained on these pairs writes
    at once what it wrote once in n drafts, and is drawn from again: rejection sampling in rounds, as in STaR (Zelikman
    et al. 2022, arXiv 2203.14465) and ReST (Gulcehre et al. 2023, arXiv 2308.08998).

    `rejected` of x -> y is the greedy rewrite or, where that is y, the worst of Y(x); "" where it scores no less than
    y, and for y -> x. With `w_pref` the model learns to leave it for y.

    Args:
        model: A model with a style adapter, trained to rewrite.
        tokenizer: The backbone's.
        texts: x.
        styles: The style of each.
        score: How good a rewrite is; such as `EditTeacher.score`, of a teacher that has not heard these texts.
        wanted: s, the style that each is asked in; if left out another than its own, all that occur in turn.
        others: Further candidates for each text, such as `EditTeacher.rewrites` offers.
        samples: Drawn candidates of each text.
        least: What the best must score more than.
        both_ways: Also y -> x, which teaches the style of x by a text that a person wrote.
        top_k: How many of the likeliest tokens may be drawn.
        seed: Another one draws other candidates.
        batch_size: Texts generated at once.

    Raises:
        ValueError: A style that the adapter lacks, texts of one style without `wanted`, or as `choose`.
    """
    bank = styles_of(model)
    own = bank.labels(styles)
    aims = in_turn(own) if wanted is None else bank.labels(wanted)
    found = drafts(model, tokenizer, texts, aims, samples=samples, top_k=top_k, seed=seed, batch_size=batch_size)
    if others is not None:
        found = [[*mine, *more] for mine, more in zip(found, others, strict=True)]
    pairs: list[ComparedPair] = []
    choices = ranked(texts, found, aims, score)
    for text, style, aim, mine, candidates in zip(texts, own, aims, found, choices, strict=True):
        best = candidates[0]
        if best.score > least and best.text.strip() and best.text != text:
            worse = ["", _worse(candidates, mine[0])]  # of y -> x, of x -> y
            both = pairs_of(text, style, best.text, aim, both_ways=both_ways)
            pairs += [ComparedPair(**pair, rejected=worse[pair["synthetic"]]) for pair in both]
    return pairs


def _worse(candidates: Sequence[Choice], greedy: str) -> str:
    """What the best of ranked candidates is compared with."""
    best, worst = candidates[0], candidates[-1]
    found = worst if best.text == greedy else next(each for each in candidates if each.text == greedy)
    return found.text if found.score < best.score else ""
