"""Texts in, texts of another style out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftConfig, PeftModel, load_peft_weights
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ._peft import PREFIX
from .config import StyleAdapterConfig
from .data import fill_prompt, pad_and_mask
from .model import head_reads, styles_of
from .style import Style

ROOM = 8  # tokens a rewrite may be longer than one and a half times its source


def prompt_of(model: PeftModel) -> str:
    """The prompt that the active adapter was trained with."""
    config = model.peft_config[model.active_adapters[0]]
    assert isinstance(config, StyleAdapterConfig)
    return config.prompt


def transfer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    styles: Any = None,
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
        styles: One style for all, or one a source; anything `StyleBank.parse` takes; the default style if left out.
        batch_size: Texts a step; they are sorted by length, so padding is small.
        max_new_tokens: Bound of a rewrite; by default one and a half times the longest source of its step, and some.
        num_beams: Beams of the search; 1 is greedy.

    Raises:
        ValueError: A style that the adapter lacks, or as many styles as neither 1 nor the number of sources.
    """
    per_row = _rows(model, styles, len(sources))
    prompts = tokenizer([fill_prompt(prompt_of(model), s) for s in sources])["input_ids"] if sources else []
    order = sorted((i for i, s in enumerate(sources) if s.strip()), key=lambda i: len(prompts[i]))
    results = list(sources)
    with _evaluating(model), head_reads(model, Tensor.contiguous):
        for rows in (order[i : i + batch_size] for i in range(0, len(order), batch_size)):
            texts = _generate(
                model,
                tokenizer,
                [prompts[i] for i in rows],
                styles=[per_row[i] for i in rows],
                max_new_tokens=max_new_tokens,
                num_beams=num_beams,
            )
            for i, text in zip(rows, texts, strict=True):
                results[i] = text
    return results


def _generate(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    styles: Sequence[Style],
    max_new_tokens: int | None,
    num_beams: int,
) -> list[str]:
    """One batch of prompts continued (or, by an encoder-decoder, answered), one style a row."""
    encoder_decoder = model.config.is_encoder_decoder
    ids, mask = pad_and_mask(prompts, pad_id(tokenizer), left=not encoder_decoder)  # as the collator pads
    generated = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        styles=list(styles),
        max_new_tokens=max_new_tokens or ids.shape[1] * 3 // 2 + ROOM,
        num_beams=num_beams,
        do_sample=False,
        pad_token_id=pad_id(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
    )
    new = generated if encoder_decoder else generated[:, ids.shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def _rows(model: PeftModel, styles: Any, count: int) -> list[Style]:
    """One style a row of `count`; None is the default style."""
    bank = styles_of(model)
    return bank.rows(bank.default or bank.names[0] if styles is None else styles, count)


@contextmanager
def _evaluating(model: PeftModel) -> Iterator[None]:
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


def load(adapter: str, *, base: str | None = None, dtype: str = "auto") -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """A saved adapter on its backbone, ready to run, and its tokenizer.

    Args:
        adapter: Folder or hub id; the tokenizer beside the adapter is taken, the backbone's where there is none.
        base: Folder or hub id of the backbone; the one recorded in the adapter if left out.
        dtype: Precision of the frozen weights.

    Raises:
        ValueError: The adapter records no backbone and none is given.
    """
    config = PeftConfig.from_pretrained(adapter)
    name = base or config.base_model_name_or_path
    if not name:
        raise ValueError(f"adapter {adapter!r} records no backbone; name it with base=... (--base)")
    backbone = load_backbone(name, task_type=config.task_type, dtype=dtype, num_labels=_classes_of(adapter))
    try:
        tokenizer = AutoTokenizer.from_pretrained(adapter)
    except (OSError, ValueError):
        tokenizer = AutoTokenizer.from_pretrained(name)
    ensure_padding(backbone, tokenizer)
    return PeftModel.from_pretrained(backbone, adapter).eval(), tokenizer


_HEADS = ("score.weight", "classifier.weight", "out_proj.weight")  # what ends transformers' classifiers


def _classes_of(adapter: str) -> int | None:
    """How many classes the head saved with `adapter` tells apart: the backbone's own config need not know."""
    heads = [t for n, t in load_peft_weights(adapter, device="cpu").items() if n.endswith(_HEADS) and PREFIX not in n]
    return heads[0].shape[0] if heads else None


def ensure_padding(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The padding token in the config too, where classifiers of whole texts look for it."""
    if backbone.config.pad_token_id is None:
        backbone.config.pad_token_id = pad_id(tokenizer)


def load_backbone(
    name: str,
    *,
    task_type: str | None = None,
    dtype: str = "auto",
    load_in_4bit: bool = False,
    num_labels: int | None = None,
) -> PreTrainedModel:
    """The backbone `name` with the head that `task_type` needs; a causal or an encoder-decoder LM where it is None."""
    options: dict[str, Any] = {"dtype": dtype}
    if load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    if num_labels is not None:
        options |= {"num_labels": num_labels, "ignore_mismatched_sizes": True}  # another head is made anew
    if task_type is None:
        seq2seq = AutoConfig.from_pretrained(name).is_encoder_decoder
        task_type = "SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM"
    return _AUTO_MODELS[str(getattr(task_type, "value", task_type))].from_pretrained(name, **options)


_AUTO_MODELS: dict[str, Any] = {
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
    "SEQ_CLS": AutoModelForSequenceClassification,
}


def classify(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    styles: Any = None,
    *,
    text_pairs: Sequence[str] | None = None,
    batch_size: int = 32,
) -> list[int]:
    """The most likely class of each text by the model's head; `styles` as in `transfer`, None for the default."""
    per_row = _rows(model, styles, len(texts))
    found: list[int] = []
    with _evaluating(model):
        for i in range(0, len(texts), batch_size):
            rows = slice(i, i + batch_size)
            pairs = None if text_pairs is None else list(text_pairs[rows])
            ids, mask = pad_and_mask(tokenizer(list(texts[rows]), pairs)["input_ids"], pad_id(tokenizer))
            logits = model(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), styles=per_row[rows]
            ).logits
            found += logits.argmax(dim=-1).tolist()
    return found
