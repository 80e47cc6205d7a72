"""Tiny seeded backbones made from their configs, and adapters whose every tensor matters."""

import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import pytest
import torch
from datasets.fingerprint import generate_random_fingerprint
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from style_adapter import StyleAdapterConfig

# The library evaluate makes a folder for each kind of metric, at home unless told otherwise before it is imported.
os.environ.setdefault("HF_METRICS_CACHE", os.path.join(tempfile.gettempdir(), "style_adapter_metrics"))


@pytest.fixture
def no_cache_at_home(tmp_path_factory, monkeypatch):
    """What the library datasets keeps of files goes with the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


VOCAB, WIDTH = 31, 16
STYLES = ["modern", "kjv", "pirate"]


def llama(**options: Any) -> PreTrainedModel:
    """A Llama of two blocks, with grouped keys."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes |= {"num_hidden_layers": 2, "vocab_size": VOCAB, "max_position_embeddings": 64}
    return _seeded(LlamaForCausalLM, LlamaConfig(**sizes | _TOKENS | options))


def gpt2(**options: Any) -> PreTrainedModel:
    """A GPT-2 of two blocks: its linear layers are transformers' Conv1D, with transposed weights."""
    sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "vocab_size": VOCAB, "n_positions": 64}
    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    return _seeded(GPT2LMHeadModel, GPT2Config(**sizes | off | _TOKENS | options))


def t5(**options: Any) -> PreTrainedModel:
    """A T5 of two blocks on each side."""
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": VOCAB}
    return _seeded(
        T5ForConditionalGeneration,
        T5Config(**sizes | {"dropout_rate": 0.0, "decoder_start_token_id": 0} | _TOKENS | options),
    )


def bert(**options: Any) -> PreTrainedModel:
    """A BERT of two blocks that tells three classes apart."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 64}
    return _seeded(
        BertForSequenceClassification,
        BertConfig(**sizes | off | {"vocab_size": VOCAB, "num_labels": 3, "pad_token_id": 0} | options),
    )


_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
BACKBONES: dict[str, Callable[..., PreTrainedModel]] = {"llama": llama, "gpt2": gpt2, "t5": t5, "bert": bert}
_MADE: dict[tuple[type, str], PreTrainedModel] = {}


def _seeded(cls: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    """The same weights each time, larger than transformers draws them so that no output is nearly constant."""
    key = (cls, config.to_json_string(use_diff=False))
    if key not in _MADE:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = cls(config)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3, generator=generator)
        _MADE[key] = model.eval()
    return copy.deepcopy(_MADE[key])


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every adapter tensor drawn anew, so that no part of the update is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "style_adapter_" in name:
                parameter.normal_(std=0.3, generator=generator)
    return model


def adapted(backbone: PreTrainedModel, seed: int = 0, **options: Any) -> PeftModel:
    """`backbone` with a random adapter of three styles on it."""
    config = StyleAdapterConfig(**{"styles": list(STYLES), "r": 4, "alpha": 8.0} | options)
    return randomise(get_peft_model(backbone, config), seed).eval()


def token_ids(rows: int, length: int = 7, seed: int = 0) -> Tensor:
    """Token ids [rows, length] without padding."""
    return torch.randint(2, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every gradient, by parameter name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(autouse=True, scope="session")
def _rows_are_mapped_without_a_hash_of_the_function() -> Iterator[None]:
    # It names a cached file. Rows in memory have none, and a hash of a function with checked types takes seconds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.arrow_dataset.update_fingerprint", lambda *parts: generate_random_fingerprint())
        yield


@pytest.fixture(autouse=True)
def _no_test_moves_the_random_numbers_of_another() -> None:
    torch.manual_seed(1234)


@pytest.fixture
def backbone() -> PreTrainedModel:
    """The frozen Llama."""
    return llama()


@pytest.fixture
def model(backbone) -> PeftModel:
    """The Llama with a random adapter of three styles."""
    return adapted(backbone)


@pytest.fixture
def ids() -> Tensor:
    """Three rows of tokens."""
    return token_ids(3)
