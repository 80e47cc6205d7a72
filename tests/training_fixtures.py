"""Tiny models, a byte tokenizer and toy rows, all made here: what the tests of training and of files share."""

from pathlib import Path
from typing import Any

import datasets
import torch
from peft import PeftModel, TaskType, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
    T5ForTokenClassification,
)

from style_adapter import StyleAdapterConfig, StyleBank, styles_of
from style_adapter.arguments import StyleTrainingArguments
from style_adapter.data import StyleEncoding, TransferCollator, tokenize_transfer
from style_adapter.trainer import StyleTrainer

PAD, END = 0, 1
VOCAB = 258  # every byte, padding and the end of a text
STYLES = ["loud", "calm"]
PROMPT = "{source}\n"
SOURCES = ["ab", "cde", "fg", "éa", "日b", "ja je", "hi", "kl"]


def byte_tokenizer(**tokens: str) -> PreTrainedTokenizerBase:
    """Each byte a token: any text comes back as it was; `tokens` such as mask_token="<mask>" beside them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": PAD, "</s>": END, **{byte: row + 2 for row, byte in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", **tokens)


def closing_tokenizer() -> PreTrainedTokenizerBase:
    """The same, but it closes each text, as that of T5 does."""
    tokenizer = byte_tokenizer()
    closed = {"single": "$A </s>", "pair": "$A </s> $B </s>", "special_tokens": [("</s>", END)]}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(**closed)
    return tokenizer


_LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": END,
    "initializer_range": 0.2,
}
_GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}
_BERT = {
    "vocab_size": VOCAB + 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": PAD,
    "initializer_range": 0.2,
}
_T5 = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "decoder_start_token_id": PAD,
    "dropout_rate": 0.0,
    "classifier_dropout": 0.0,
}


def llama(**options: Any) -> PreTrainedModel:
    """A Llama of two blocks of 32."""
    return _seeded(LlamaForCausalLM, LlamaConfig(**_LLAMA | options))


def llama_classifier(**options: Any) -> PreTrainedModel:
    """The same with a head for classes."""
    return _seeded(LlamaForSequenceClassification, LlamaConfig(**_LLAMA | options))


def gpt2(**options: Any) -> PreTrainedModel:
    """A GPT-2 of two blocks of 32."""
    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "pad_token_id": PAD, "eos_token_id": END}
    return _seeded(GPT2LMHeadModel, GPT2Config(**_GPT2 | off | options))


def gpt2_classifier(**options: Any) -> PreTrainedModel:
    """A GPT-2 with a head for classes; no dropout."""
    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "pad_token_id": PAD}
    return _seeded(GPT2ForSequenceClassification, GPT2Config(**_GPT2 | off | options))


def llama_tagger(**options: Any) -> PreTrainedModel:
    """A Llama with a head for the classes of tokens."""
    return _seeded(LlamaForTokenClassification, LlamaConfig(**_LLAMA | {"classifier_dropout": 0.0} | options))


def gpt2_tagger(**options: Any) -> PreTrainedModel:
    """A GPT-2 with a head for the classes of tokens; no dropout."""
    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "classifier_dropout": 0.0, "pad_token_id": PAD}
    return _seeded(GPT2ForTokenClassification, GPT2Config(**_GPT2 | off | options))


def bert_tagger(**options: Any) -> PreTrainedModel:
    """A BERT with a head for the classes of tokens."""
    return _seeded(BertForTokenClassification, BertConfig(**_BERT | options))


def masked_bert(**options: Any) -> PreTrainedModel:
    """A BERT with a head over the vocabulary, one token more than the others: the one that masks."""
    return _seeded(BertForMaskedLM, BertConfig(**_BERT | options))


def t5(**options: Any) -> PreTrainedModel:
    """A T5 of two blocks of 32 a side; no dropout."""
    return _seeded(T5ForConditionalGeneration, T5Config(**_T5 | options))


def t5_classifier(**options: Any) -> PreTrainedModel:
    """The same with a head for classes, which reads what the decoder says at the end of the text."""
    return _seeded(T5ForSequenceClassification, T5Config(**_T5 | options))


def t5_tagger(**options: Any) -> PreTrainedModel:
    """Its encoder with a head for the classes of tokens."""
    return _seeded(T5ForTokenClassification, T5Config(**_T5 | options))


def _seeded(cls: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    """The same weights at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cls(config)


def adapted(backbone: PreTrainedModel | None = None, *, seed: int = 0, **options: Any) -> PeftModel:
    """A fresh adapter of two styles on a causal Llama, or on `backbone`."""
    torch.manual_seed(seed)
    defaults: dict[str, Any] = {"styles": STYLES, "r": 8, "target_modules": "all-linear", "prompt": PROMPT}
    defaults["task_type"] = TaskType.CAUSAL_LM
    return get_peft_model(llama() if backbone is None else backbone, StyleAdapterConfig(**defaults | options))


def save_backbone(folder: Path, backbone: PreTrainedModel | None = None) -> None:
    """A backbone, a llama if left out, and its tokenizer, into `folder` / "base"."""
    (llama() if backbone is None else backbone).save_pretrained(folder / "base")
    byte_tokenizer().save_pretrained(folder / "base")


def toy_rows(sources: list[str] | None = None) -> datasets.Dataset:
    """Each source twice: in capitals and closed by "!", and as it is, closed by a dot."""
    sources = SOURCES if sources is None else sources
    rows = [
        row
        for s in sources
        for row in (
            {"source": s, "target": s.upper() + "!", "style": "loud"},
            {"source": s, "target": s + ".", "style": "calm"},
        )
    ]
    return datasets.Dataset.from_list(rows)


def arguments(folder: Path, **options: Any) -> StyleTrainingArguments:
    """A short run on the CPU that writes nothing and plays with every term from its first step; `options` on top."""
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1.0,
        "disable_tqdm": True,
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "dataloader_pin_memory": False,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "discriminator_blocks": 1,
        "discriminator_width": 16,
        "adversary_start": 0,
        "adversary_fraction": 1.0,
        "w_feat": 0.1,
        "w_cls": 0.05,
    }
    return StyleTrainingArguments(**defaults | options)


def make_trainer(
    folder: Path, *, model: PeftModel | None = None, rows: Any = None, tokenizer: Any = None, **options: Any
) -> StyleTrainer:
    """A trainer of the toy; options that `StyleTrainer` takes itself go there, the others are arguments."""
    names = ("eval_dataset", "callbacks", "judge", "discriminator", "compute_metrics")
    own = {key: options.pop(key) for key in names if key in options}
    return StyleTrainer(
        model=adapted() if model is None else model,
        args=arguments(folder, **options),
        train_dataset=toy_rows() if rows is None else rows,
        processing_class=byte_tokenizer() if tokenizer is None else tokenizer,
        **own,
    )


def style_encoder(bank: StyleBank) -> StyleEncoding:
    """A list of styles -> ids and weights, as the trainer gives it to its collator."""

    def encode(styles: Any) -> tuple[Tensor, Tensor]:
        code = bank.code(list(styles))
        return code.ids, code.weights

    return encode


def toy_batch(model: PeftModel, rows: datasets.Dataset | None = None, *, fraction: float = 1.0) -> dict[str, Tensor]:
    """Rows of the toy as the game takes them."""
    decoder_only = not model.config.is_encoder_decoder
    encode = style_encoder(styles_of(model))
    collator = TransferCollator(PAD, encode, fraction=fraction, decoder_only=decoder_only)
    rows = toy_rows(["ab", "cde"]) if rows is None else rows
    return collator(list(tokenize_transfer(rows, byte_tokenizer(), prompt=PROMPT)))


def randomised(model: PeftModel) -> PeftModel:
    """Every adapter tensor drawn anew: a fresh adapter, with B = 0, hides what its other tensors do."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "style_adapter_" in name:
                parameter.normal_(std=0.3, generator=generator)
    return model


def adapter_weights(model: PeftModel) -> dict[str, Tensor]:
    """A copy of every adapter tensor."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if "style_adapter_" in n}


_TRAINED: list[StyleTrainer] = []


def trained_toy(folder: Path) -> StyleTrainer:
    """A trainer that has learnt the toy by heart, the discriminator playing; one for all tests: leave it as it is."""
    if not _TRAINED:
        options = {"max_steps": 150, "logging_steps": 50.0, "per_device_train_batch_size": 16}
        trainer = make_trainer(folder, gate_learning_rate=1e-2, **options)
        trainer.train()
        _TRAINED.append(trainer)
    return _TRAINED[0]
