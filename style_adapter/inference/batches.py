"""What every batch of texts needs: the prompt, a style a row, padding, a model at rest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..config import StyleAdapterConfig
from ..data import pad_and_mask, room
from ..functional import positions_of
from ..model import Strength, styled, styles_of
from ..style import Style


def prompt_of(model: PeftModel) -> str:
    """The prompt that the active adapter was trained with."""
    config = model.peft_config[model.active_adapters[0]]
    assert isinstance(config, StyleAdapterConfig)
    return config.prompt


def rows_of(model: PeftModel, styles: Any, count: int) -> list[Style]:
    """One style a row of `count`; None is the default style."""
    bank = styles_of(model)
    return bank.rows(bank.usual if styles is None else styles, count)


@contextmanager
def evaluating(model: PeftModel) -> Iterator[None]:
    """Inside the block no dropout and no gradient; afterwards the mode is what it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding token, or the end-of-text token where there is none.

    Raises:
        ValueError: The tokenizer has neither.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise ValueError("tokenizer.pad_token=None must be a token where there is no eos_token; set tokenizer.pad_token")


def continued(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    styles: Sequence[Style],
    strength: Strength = 1.0,
    copies: int = 1,
    **options: Any,
) -> list[str]:
    """One batch of prompts continued (or, by an encoder-decoder, answered), one style a row; `options` of `generate`.

    Greedy where they say nothing else: by default half as long again as the longest prompt, and some. Each prompt is
    continued `copies` times, one after the other, and by a decoder read only once.
    """
    encoder_decoder = model.config.is_encoder_decoder
    ids, mask = pad_and_mask(prompts, pad_id(tokenizer), left=not encoder_decoder)  # as the collator pads
    ids, mask = ids.to(model.device), mask.to(model.device)
    bound = options.pop("max_new_tokens", None) or room(ids.shape[1])
    if copies > 1:
        if not encoder_decoder and ids.shape[1] > 1:
            options["past_key_values"] = _read(model, ids, mask, styles, strength, copies)
        ids, mask = (tensor.repeat_interleave(copies, dim=0) for tensor in (ids, mask))
        styles = [style for style in styles for _ in range(copies)]
    generated = model.generate(
        input_ids=ids,
        attention_mask=mask,
        styles=list(styles),
        style_strength=strength,
        max_new_tokens=bound,
        do_sample=False,
        pad_token_id=pad_id(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )
    new = generated if encoder_decoder else generated[:, ids.shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def _read(
    model: PeftModel,
    ids: Int[Tensor, "batch seq"],
    mask: Int[Tensor, "batch seq"],
    styles: Sequence[Style],
    strength: Strength,
    copies: int,
) -> Any:
    """The cache of each prompt but its last token, `copies` times."""
    with styled(model, [*styles], strength=strength):
        cache = model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions_of(mask)[:, :-1],
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values
    cache.batch_repeat_interleave(copies)
    return cache
