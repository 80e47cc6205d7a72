"""What every batch of texts needs: the prompt, a style a row, padding, a model at rest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from ..config import StyleAdapterConfig
from ..data import pad_and_mask, room
from ..model import styles_of
from ..style import Style


def prompt_of(model: PeftModel) -> str:
    """The prompt that the active adapter was trained with."""
    config = model.peft_config[model.active_adapters[0]]
    assert isinstance(config, StyleAdapterConfig)
    return config.prompt


def rows_of(model: PeftModel, styles: Any, count: int) -> list[Style]:
    """One style a row of `count`; None is the default style."""
    bank = styles_of(model)
    return bank.rows(bank.default or bank.names[0] if styles is None else styles, count)


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
    **options: Any,
) -> list[str]:
    """One batch of prompts continued (or, by an encoder-decoder, answered), one style a row; `options` of `generate`.

    Greedy where they say nothing else: by default half as long again as the longest prompt, and some.
    """
    encoder_decoder = model.config.is_encoder_decoder
    ids, mask = pad_and_mask(prompts, pad_id(tokenizer), left=not encoder_decoder)  # as the collator pads
    bound = options.pop("max_new_tokens", None) or room(ids.shape[1])
    generated = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        styles=list(styles),
        max_new_tokens=bound,
        do_sample=False,
        pad_token_id=pad_id(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )
    new = generated if encoder_decoder else generated[:, ids.shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
