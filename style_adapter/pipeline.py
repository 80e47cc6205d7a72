"""Texts in, texts of another style out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .data import fill_prompt, pad
from .model import styles_of

ROOM = 8  # tokens a rewrite may be longer than one and a half times its source


def prompt_of(model: PeftModel) -> str:
    """The prompt that the active adapter was trained with."""
    return model.peft_config[model.active_adapters[0]].prompt  # type: ignore[union-attr]


def transfer(  # noqa: PLR0913 - one option a knob of generation
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    styles: Any,
    *,
    batch_size: int = 32,
    max_new_tokens: int | None = None,
    num_beams: int = 1,
) -> list[str]:
    """Each source rewritten in its style, in the order given; greedy, or by beams.

    Args:
        model: A model with a style adapter.
        tokenizer: The backbone's.
        sources: Texts; empty ones come back as they are.
        styles: One style for all, or a list, one a source; anything `StyleBank.parse` takes.
        batch_size: Texts a step; they are sorted by length, so padding is small.
        max_new_tokens: Bound of a rewrite; by default one and a half times the longest source of its step, and some.
        num_beams: Beams of the search; 1 is greedy.

    Raises:
        ValueError: A style that the adapter lacks, or as many styles as neither 1 nor the number of sources.
    """
    bank = styles_of(model)
    per_row = [bank.parse(s) for s in styles] if isinstance(styles, (list, tuple)) else [bank.parse(styles)] * len(sources)
    if len(per_row) != len(sources):
        raise ValueError(
            f"styles: {len(per_row)} styles for {len(sources)} sources; give one style for all or one a source"
        )
    prompts = tokenizer([fill_prompt(prompt_of(model), s) for s in sources])["input_ids"] if sources else []
    order = sorted((i for i, s in enumerate(sources) if s.strip()), key=lambda i: len(prompts[i]))
    results = list(sources)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), contiguous_head(model):
            for rows in (order[i : i + batch_size] for i in range(0, len(order), batch_size)):
                ids = pad([prompts[i] for i in rows], _pad_id(tokenizer), left=True)
                lengths = torch.tensor([len(prompts[i]) for i in rows])[:, None]
                generated = model.generate(
                    input_ids=ids.to(model.device),
                    attention_mask=(torch.arange(ids.shape[1]) >= ids.shape[1] - lengths).long().to(model.device),
                    styles=[per_row[i] for i in rows],
                    max_new_tokens=max_new_tokens or ids.shape[1] * 3 // 2 + ROOM,
                    num_beams=num_beams,
                    do_sample=False,
                    pad_token_id=_pad_id(tokenizer),
                    eos_token_id=tokenizer.eos_token_id,
                )
                new = generated if model.config.is_encoder_decoder else generated[:, ids.shape[1] :]
                for i, text in zip(rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                    results[i] = text.strip()
    finally:
        model.train(training)
    return results


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding token, or the end-of-text token where there is none."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


@contextmanager
def contiguous_head(model: PeftModel) -> Iterator[None]:
    """Inside the block the head over the vocabulary gets contiguous inputs.

    In bf16 on the CPU a strided last position takes a batched product with an expanded copy of the weight:
    72 % of a generation's time.
    """
    head = model.get_base_model().get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(_contiguous)
    try:
        yield
    finally:
        handle.remove()


def _contiguous(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Forward pre-hook: each input copied to rows without gaps."""
    return tuple(arg.contiguous() for arg in args)
