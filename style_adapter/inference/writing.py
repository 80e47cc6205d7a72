"""Texts written in a style, from a prompt or from nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..bars import with_bar
from ..data import prompt_ids
from ..model import Strength, head_reads, styles_of
from ..sampling import SeededSampling
from ..seeds import generator_of, row_seed
from ..style import StyleBank
from .batches import continued, evaluating, prompt_of, rows_of

DRAWN = 128  # tokens of a text that is no rewrite
TOP_K = 64  # likeliest tokens that may be drawn


@dataclass(frozen=True)
class _Sheet:
    """A text to write: where its prompt stands, which of its samples it is, and what both are drawn from."""

    prompt: int
    sample: int
    row_id: int
    seed: int

    def seed_for(self, use: str) -> int:
        """A pure function of (seed, row, sample)."""
        return row_seed(self.seed, self.sample, self.row_id, use=use)


def write(  # noqa: PLR0913 - one option a way to draw
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    styles: Any = None,
    *,
    strength: Strength = 1.0,
    samples: int = 1,
    temperature: float | int = 1.0,
    top_k: int = TOP_K,
    top_p: float = 1.0,
    max_new_tokens: int = DRAWN,
    seed: int = 0,
    noise: Float[Tensor, "prompts samples noise_dim"] | None = None,
    noise_scale: float | int = 1.0,
    prompt: str | None = None,
    row_ids: Sequence[int] | None = None,
    batch_size: int = 32,
) -> list[list[str]]:
    """`samples` texts for each prompt, drawn in its style: sample k of row r is a pure function of (seed, r, k).

    Neither the batch nor the other rows change a text, up to rounding: in bf16 two tokens that are almost as likely may
    change places.

    Args:
        model: A model with a style adapter, trained by `task="generation"`; any other writes too.
        tokenizer: The backbone's.
        prompts: What each text begins from; "" for nothing but the style and the noise.
        styles: One style for all, or one a prompt; anything `StyleBank.parse` takes; the default style if left out.
        strength: A factor on the style, one for all layers or by block, such as {"layers.0-11": 0.5}.
        samples: Texts a prompt.
        temperature: Divides the logits; below 1 the texts are more alike, 0 takes the likeliest token.
        top_k: How many of the likeliest tokens may be drawn.
        top_p: Least probability of the tokens that may be drawn, the likeliest first.
        max_new_tokens: Bound of a text.
        seed: Another one draws other texts.
        noise: z of each text, where the adapter has `noise_dim`; drawn by the seed if left out.
        noise_scale: What noise that is drawn is multiplied by; 0 is none.
        prompt: What stands around each prompt; what the adapter was trained with if left out.
        row_ids: r of each prompt; its place if left out.
        batch_size: Texts a step; they are sorted by the length of their prompts, so padding is small.

    Returns:
        For each prompt the list of its texts, without the prompt.

    Raises:
        ValueError: A style that the adapter lacks, as many styles as neither 1 nor the number of prompts, or an option
            out of its bounds.
    """
    if samples < 1 or max_new_tokens < 1:
        raise ValueError(f"samples={samples} and max_new_tokens={max_new_tokens} must be >= 1; 1 and 128 are usual")
    bank, per_row = styles_of(model), rows_of(model, styles, len(prompts))
    tokens = prompt_ids(tokenizer, prompt or prompt_of(model), prompts)
    ids = range(len(prompts)) if row_ids is None else row_ids
    results = [[""] * samples for _ in prompts]
    batches = _batches(tokens, ids, samples, seed, batch_size)
    with evaluating(model), head_reads(model, Tensor.contiguous):
        for sheets in with_bar(batches, "writing", samples * len(prompts)):
            seeds = [sheet.seed_for("text") for sheet in sheets]
            draw = SeededSampling(seeds, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p)
            drawn = _noise(bank, sheets, noise, noise_scale)
            copies = sum(sheet.prompt == sheets[0].prompt for sheet in sheets)
            readers = copies if drawn is None else 1  # with other noise a prompt is read otherwise
            texts = continued(
                model,
                tokenizer,
                [tokens[sheet.prompt] for sheet in sheets[::readers]],
                styles=[per_row[sheet.prompt] for sheet in sheets[::readers]],
                strength=strength,
                copies=readers,
                style_noise=drawn,
                max_new_tokens=max_new_tokens,
                num_beams=1,
                logits_processor=[draw],
            )
            for sheet, text in zip(sheets, texts, strict=True):
                results[sheet.prompt][sheet.sample] = text
    return results


def _batches(
    prompts: Sequence[Sequence[int]], row_ids: Sequence[int], samples: int, seed: int, size: int
) -> Iterator[list[_Sheet]]:
    """Texts to write, equally many of each prompt side by side, those with prompts of one length together."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, samples, size):
        copies = range(first, min(first + size, samples))
        step = max(1, size // len(copies))
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            yield [_Sheet(i, k, row_ids[i], seed) for i in rows for k in copies]


def _noise(bank: StyleBank, sheets: Sequence[_Sheet], given: Tensor | None, scale: float | int) -> Tensor | None:
    """z of each text [rows, noise_dim]; None for an adapter without noise."""
    if given is not None:
        return torch.stack([given[sheet.prompt, sheet.sample] for sheet in sheets])
    if not bank.noise_dim:
        return None
    return scale * torch.cat(
        [bank.sample_noise(1, generator=generator_of(sheet.seed_for("noise"))) for sheet in sheets]
    )
