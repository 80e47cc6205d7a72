"""Texts in, texts of another style out."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftConfig, PeftModel
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

from .data import fill_prompt, pad
from .model import head_reads, styles_of

ROOM = 8  # tokens a rewrite may be longer than one and a half times its source


def prompt_of(model: PeftModel) -> str:
    """The prompt that the active adapter was trained with."""
    return model.peft_config[model.active_adapters[0]].prompt  # type: ignore[union-attr]


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
    bank = styles_of(model)
    per_row = bank.rows(bank.default if styles is None else styles, len(sources))
    prompts = tokenizer([fill_prompt(prompt_of(model), s) for s in sources])["input_ids"] if sources else []
    order = sorted((i for i, s in enumerate(sources) if s.strip()), key=lambda i: len(prompts[i]))
    results = list(sources)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), head_reads(model, Tensor.contiguous):
            for rows in (order[i : i + batch_size] for i in range(0, len(order), batch_size)):
                ids = pad([prompts[i] for i in rows], pad_id(tokenizer), left=True)
                lengths = torch.tensor([len(prompts[i]) for i in rows])[:, None]
                generated = model.generate(
                    input_ids=ids.to(model.device),
                    attention_mask=(torch.arange(ids.shape[1]) >= ids.shape[1] - lengths).long().to(model.device),
                    styles=[per_row[i] for i in rows],
                    max_new_tokens=max_new_tokens or ids.shape[1] * 3 // 2 + ROOM,
                    num_beams=num_beams,
                    do_sample=False,
                    pad_token_id=pad_id(tokenizer),
                    eos_token_id=tokenizer.eos_token_id,
                )
                new = generated if model.config.is_encoder_decoder else generated[:, ids.shape[1] :]
                for i, text in zip(rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                    results[i] = text.strip()
    finally:
        model.train(training)
    return results


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding token, or the end-of-text token where there is none."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def load(adapter: str, *, base: str | None = None, dtype: str = "auto") -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """A saved adapter on its backbone, ready to run, and the tokenizer saved beside it.

    Args:
        adapter: Folder or hub id.
        base: Folder or hub id of the backbone; the one recorded in the adapter if left out.
        dtype: Precision of the frozen weights.

    Raises:
        ValueError: The adapter records no backbone and none is given.
    """
    config = PeftConfig.from_pretrained(adapter)
    name = base or config.base_model_name_or_path
    if not name:
        raise ValueError(f"adapter {adapter!r} records no backbone; name it with base=... (--base)")
    backbone = load_backbone(name, task_type=config.task_type, dtype=dtype)
    return PeftModel.from_pretrained(backbone, adapter).eval(), AutoTokenizer.from_pretrained(adapter)


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
        options["num_labels"] = num_labels
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
    bank = styles_of(model)
    per_row = bank.rows(bank.default if styles is None else styles, len(texts))
    found: list[int] = []
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for i in range(0, len(texts), batch_size):
                rows = slice(i, i + batch_size)
                pairs = None if text_pairs is None else list(text_pairs[rows])
                ids = tokenizer(list(texts[rows]), pairs)["input_ids"]
                lengths = torch.tensor([*map(len, ids)])[:, None]
                padded = pad(ids, pad_id(tokenizer))
                logits = model(
                    input_ids=padded.to(model.device),
                    attention_mask=(torch.arange(padded.shape[1]) < lengths).long().to(model.device),
                    styles=per_row[rows],
                ).logits
                found += logits.argmax(dim=-1).tolist()
    finally:
        model.train(training)
    return found
