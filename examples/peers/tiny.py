"""What the examples beside this file share: a tiny backbone made here, or a real one, and rows in two styles."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

STYLES = ["loud", "calm"]
WORDS = {"hello": ("HELLO", "hi"), "thanks": ("THANKS", "cheers"), "goodbye": ("GOODBYE", "bye"), "yes": ("YES", "ok")}
SPECIAL = ["<pad>", "</s>", "<unk>"]


def arguments(text: str | None, argv: Sequence[str] | None, *, max_steps: int = 0) -> argparse.Namespace:
    """`--model`, and `--max_steps` where the example trains."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Folder or hub id of the backbone; a tiny one is made here if left out.")
    if max_steps:
        parser.add_argument("--max_steps", type=int, default=max_steps, help="Steps of training.")
    return parser.parse_args(argv)


def load(name: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The backbone and its tokenizer; a tiny random Llama over whole words where no name is given."""
    set_seed(0)
    if name is not None:
        return AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    tokenizer = tiny_tokenizer()
    return LlamaForCausalLM(tiny_config(len(tokenizer))), tokenizer


def tiny_config(vocab_size: int) -> LlamaConfig:
    """Two blocks of 32, drawn larger than usual: a frozen random backbone must tell its inputs apart."""
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return LlamaConfig(vocab_size=vocab_size, initializer_range=0.2, **sizes, **heads, **tokens)


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Each word of the rows a token."""
    words = dict.fromkeys(word for source, targets in WORDS.items() for word in (source, *targets))
    vocabulary = {word: row for row, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "padding_side": "left"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def rows() -> Dataset:
    """Each prompt in both styles: `prompt`, `completion`, what the other style would say, and `style`."""
    return Dataset.from_list(
        [
            {"prompt": source, "completion": f" {said[i]}", "other": f" {said[1 - i]}", "style": STYLES[i]}
            for source, said in WORDS.items()
            for i in (0, 1)
        ]
    )


@torch.no_grad()
def answers(model: Any, tokenizer: PreTrainedTokenizerBase, styles: Any) -> list[str]:
    """What the model says to each prompt, in one style for all or one a prompt."""
    batch = tokenizer(list(WORDS), return_tensors="pt", padding=True, return_token_type_ids=False)
    end = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    generated = model.eval().generate(**batch, styles=styles, max_new_tokens=4, do_sample=False, **end)
    return tokenizer.batch_decode(generated[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
