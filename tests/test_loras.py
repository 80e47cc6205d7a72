"""LoRAs as the styles of one adapter, judged by each LoRA alone in stock PEFT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import from_loras as example
import pytest
import torch
from conftest import bert, gpt2, llama, t5, token_ids
from lora_fixtures import deltas, logits, make_lora, weighted_sum
from peft import LoHaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from style_adapter import OFF, StyleAdapterConfig, from_loras
from style_adapter.layers import StyleLayer

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
LLAMA = {
    "plain": {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]},
    "scaled": {"r": 3, "lora_alpha": 7, "use_rslora": True, "target_modules": ["v_proj", "o_proj", "down_proj"]},
    "patterns": {
        "r": 2,
        "lora_alpha": 5,
        "target_modules": "all-linear",
        "rank_pattern": {"layers.1.self_attn.q_proj": 5, "up_proj": 1},
        "alpha_pattern": {"v_proj": 3},
        "lora_dropout": 0.5,
        "init_lora_weights": "gaussian",
    },
    "one block": {"r": 6, "lora_alpha": 2, "target_modules": ["q_proj", "gate_proj"], "layers_to_transform": [1]},
}
GPT2 = {
    "plain": {"r": 4, "lora_alpha": 6, "target_modules": ["c_attn"], "fan_in_fan_out": True},
    "scaled": {"r": 2, "use_rslora": True, "target_modules": ["c_fc", "c_attn"], "fan_in_fan_out": True},
    "patterns": {
        "r": 3,
        "lora_alpha": 5,
        "target_modules": ["c_proj", "c_fc"],
        "rank_pattern": {"mlp.c_proj": 5},
        "alpha_pattern": {"h.0.attn.c_proj": 1},
        "fan_in_fan_out": True,
    },
}
CASES: dict[str, tuple[Callable[..., PreTrainedModel], dict[str, Any]]] = {
    "llama": (llama, LLAMA),
    "gpt2": (gpt2, GPT2),
}


def make_all(case: str, folder: Path) -> tuple[dict[str, PeftModel], dict[str, str]]:
    """The LoRAs of a case in PEFT, each on a backbone of its own, and their folders."""
    backbone, options = CASES[case]
    folders = {name: str(folder / name) for name in options}
    models = {name: make_lora(backbone(), folders[name], seed, **options[name]) for seed, name in enumerate(options)}
    return models, folders


@pytest.mark.parametrize("case", CASES)
def test_each_style_is_its_lora(tmp_path, case):
    models, folders = make_all(case, tmp_path)
    model = from_loras(CASES[case][0](), folders).eval()
    assert list(model.base_model.styles) == list(folders)
    for name, lora in models.items():
        torch.testing.assert_close(logits(model, styles=name), logits(lora), **CLOSE)
    frozen = logits(CASES[case][0]())
    assert torch.equal(logits(model, styles=OFF), frozen)
    alone = [frozen, *(logits(lora) for lora in models.values())]
    for i, one in enumerate(alone):
        assert all((one - other).abs().max() > 0.1 for other in alone[:i])  # none stands for another


@pytest.mark.parametrize("case", CASES)
def test_rows_of_a_batch_are_different_loras(tmp_path, case):
    models, folders = make_all(case, tmp_path)
    model, names = from_loras(CASES[case][0](), folders).eval(), list(folders)[:2]
    found = logits(model, styles=names)
    for row, name in enumerate(names):
        torch.testing.assert_close(found[row], logits(models[name])[row], **CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_a_mixture_is_the_sum_of_the_loras(tmp_path, case):
    models, folders = make_all(case, tmp_path)
    model = from_loras(CASES[case][0](), folders).eval()
    weights = dict(zip(folders, [0.7, -1.5, 0.4, 2.0], strict=False))
    wanted = weighted_sum({name: deltas(lora, "default") for name, lora in models.items()}, weights)
    layers = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if isinstance(m, StyleLayer)}
    assert layers.keys() == wanted.keys()
    with torch.no_grad(), model.base_model.styled(weights):
        for name, layer in layers.items():
            torch.testing.assert_close(layer.get_delta_weight("default"), wanted[name], atol=1e-6, rtol=1e-5)


def test_a_rank_is_the_sum_and_a_gate_is_one_on_its_own_block_alone(tmp_path):
    _, folders = make_all("llama", tmp_path)
    model = from_loras(llama(), folders)
    layer = model.get_submodule("base_model.model.model.layers.1.self_attn.q_proj")  # in all but "scaled"
    assert (layer.r["default"], layer.scaling["default"]) == (4 + 5 + 6, 1.0)
    wanted = torch.block_diag(torch.ones(1, 4), torch.ones(1, 0), torch.ones(1, 5), torch.ones(1, 6))
    assert torch.equal(layer.style_adapter_gate["default"].weight.detach(), wanted)


def test_the_adapter_travels_like_any_other(tmp_path):
    models, folders = make_all("llama", tmp_path)
    from_loras(llama(), folders, default_style="scaled", prompt="<{source}>").save_pretrained(tmp_path / "all")
    loaded = PeftModel.from_pretrained(llama(), tmp_path / "all").eval()
    assert loaded.peft_config["default"].prompt == "<{source}>"
    torch.testing.assert_close(logits(loaded), logits(models["scaled"]), **CLOSE)
    torch.testing.assert_close(logits(loaded, styles="patterns"), logits(models["patterns"]), **CLOSE)


def test_an_encoder_decoder_and_another_adapter_name(tmp_path):
    lora = make_lora(t5(), tmp_path, target_modules=["q", "wo"], lora_alpha=3, task_type="SEQ_2_SEQ_LM")
    model = from_loras(t5(), {"only": tmp_path}, adapter_name="mine").eval()
    assert model.active_adapters == ["mine"]
    assert model.peft_config["mine"].task_type == "SEQ_2_SEQ_LM"
    inputs = {"input_ids": token_ids(2), "labels": token_ids(2)}
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs, styles="only").logits, lora(**inputs).logits, **CLOSE)


def test_training_goes_on_from_the_loras(tmp_path):
    _, folders = make_all("llama", tmp_path)
    model = from_loras(llama(), folders, style_dim=2, noise_dim=3)
    model(input_ids=token_ids(2), labels=token_ids(2), styles="plain").loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("style_adapter_" in name for name in trained)
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 for p in trained.values())
    gates = [p.grad for name, p in trained.items() if "_gate." in name and "q_proj" in name]
    assert all(grad is not None and grad[0].abs().max() > 0 and not grad[1:].any() for grad in gates)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loras_in_half_precision_are_kept_in_full(tmp_path, dtype):
    lora = make_lora(llama(), tmp_path, target_modules=["q_proj"], lora_alpha=3)
    edit_tensors(tmp_path, lambda tensors: {key: tensor.to(dtype) for key, tensor in tensors.items()})
    lora = PeftModel.from_pretrained(llama(), tmp_path).eval()
    model = from_loras(llama(), {"only": tmp_path}).eval()
    assert {p.dtype for n, p in model.named_parameters() if "style_adapter_" in n} == {torch.float32}
    torch.testing.assert_close(logits(model), logits(lora), **CLOSE)


# Other layers


class Mixed(nn.Module):
    """An embedding and convolutions in a row, and an attention."""

    def __init__(self, **conv: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(31, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.conv = nn.Conv1d(8, 8, 3, padding=1, stride=1, **conv)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        return self.conv(self.attention(x, x, x)[0].transpose(1, 2))


MIXED = {
    "both": {"target_modules": ["embed", "conv"], "r": 3, "rank_pattern": {"embed": 2}},
    "some": {"target_modules": ["conv"], "r": 2, "lora_alpha": 5, "alpha_pattern": {"conv": 3}},
    "embedding": {"target_modules": ["embed"], "r": 4, "lora_alpha": 6, "use_rslora": True},
}


@pytest.mark.filterwarnings("ignore:.*save_embedding_layers")  # PEFT
def test_embeddings_and_convolutions_are_taken_in(tmp_path):
    loras = {n: make_lora(Mixed(), tmp_path / n, k, **MIXED[n]) for k, n in enumerate(MIXED)}
    model = from_loras(Mixed(), {n: tmp_path / n for n in MIXED}).eval()
    ids = token_ids(2)
    with torch.no_grad():
        for name, lora in loras.items():
            with model.base_model.styled(name):
                torch.testing.assert_close(model(ids), lora(ids), **CLOSE)
            assert (lora(ids) - Mixed()(ids)).abs().max() > 0.1
        model.save_pretrained(tmp_path / "out")
        loaded = PeftModel.from_pretrained(Mixed(), tmp_path / "out").eval()
        with loaded.base_model.styled("some"):
            torch.testing.assert_close(loaded(ids), loras["some"](ids), **CLOSE)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")  # PEFT
def test_the_copy_of_an_embedding_that_peft_saves_must_be_the_backbones(tmp_path):
    lora = make_lora(llama(), tmp_path, target_modules=["embed_tokens"])
    key = "base_model.model.model.embed_tokens.base_layer.weight"
    assert key in load_file(tmp_path / "adapter_model.safetensors")
    torch.testing.assert_close(logits(from_loras(llama(), {"a": tmp_path}).eval()), logits(lora), **CLOSE)
    edit_tensors(tmp_path, lambda tensors: tensors | {key: tensors[key] + 1})
    with pytest.raises(ValueError, match=r"holds 'model.embed_tokens.weight' with other values than the model"):
        from_loras(llama(), {"a": tmp_path})


@pytest.mark.parametrize("conv", [{"groups": 2}, {"padding_mode": "circular"}], ids=str)
@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups > 1")  # PEFT
def test_a_convolution_that_pefts_lora_treats_otherwise_is_refused(tmp_path, conv):
    make_lora(Mixed(**conv), tmp_path, target_modules=["conv"])
    with pytest.raises(ValueError, match=r"convolution conv must have one group and pad with zeros"):
        from_loras(Mixed(**conv), {"a": tmp_path})


def test_an_attention_whose_lora_peft_counts_twice_is_refused(tmp_path):
    lora = make_lora(Mixed(), tmp_path, target_modules=["attention"])
    attention, x = lora.base_model.model.attention, torch.randn(1, 3, 8)
    factors = load_file(tmp_path / "adapter_model.safetensors")
    part = "base_model.model.attention.{}lora_{}.weight"
    once, plain = Mixed().attention, Mixed().attention
    with torch.no_grad():
        for weight, inside in ((once.in_proj_weight, ""), (once.out_proj.weight, "base_layer.out_proj.")):
            weight.add_(factors[part.format(inside, "B")] @ factors[part.format(inside, "A")])
        twice = once(x, x, x)[0] - plain(x, x, x)[0]
        assert (attention(x, x, x)[0] - plain(x, x, x)[0] - twice).abs().max() > 0.1  # else: PEFT has mended it
    with pytest.raises(ValueError, match=r"must not be in a MultiheadAttention: PEFT counts .* twice"):
        from_loras(Mixed(), {"a": tmp_path})


# Whole modules


def make_classifiers(folder: Path, *, seeds: tuple[int, int]) -> list[PeftModel]:
    """Two LoRAs of a BERT with a head of its own each, drawn by the seeds."""
    models = []
    for k, seed in enumerate(seeds):
        backbone = bert()
        torch.manual_seed(seed)
        nn.init.normal_(backbone.classifier.weight)
        options = {"target_modules": ["query", "value"], "lora_alpha": 3 + k, "task_type": "SEQ_CLS"}
        models.append(make_lora(backbone, folder / str(k), k, **options))
    return models


def test_a_head_that_all_loras_share_is_taken_in(tmp_path):
    loras = make_classifiers(tmp_path, seeds=(5, 5))
    model = from_loras(bert(), {"0": tmp_path / "0", "1": tmp_path / "1"}).eval()
    for k, lora in enumerate(loras):
        torch.testing.assert_close(logits(model, styles=str(k)), logits(lora), **CLOSE)
    assert "classifier" in model.peft_config["default"].modules_to_save
    model.save_pretrained(tmp_path / "all")
    loaded = PeftModel.from_pretrained(bert(), tmp_path / "all").eval()
    torch.testing.assert_close(logits(loaded, styles="1"), logits(loras[1]), **CLOSE)


def test_heads_that_differ_are_refused(tmp_path):
    make_classifiers(tmp_path, seeds=(5, 6))
    with pytest.raises(
        ValueError, match=r"0', loras\['1'\].*modules_to_save=\['classifier', 'score'\] must hold the same"
    ):
        from_loras(bert(), {"0": tmp_path / "0", "1": tmp_path / "1"})


# What cannot be taken in


def edit_config(folder: Path, **options: Any) -> None:
    """Other options in a saved LoRA's config."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Other tensors in a saved LoRA's file."""
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"use_dora": True}, r"use_dora=True must be False, or the LoRA is more than s \* B A; train it without"),
        ({"bias": "lora_only"}, r"bias='lora_only' must be 'none', or the LoRA"),
        ({"lora_bias": True}, r"lora_bias=True must be False"),
        ({"target_parameters": ["experts.up"]}, r"target_parameters=\['experts.up'\] must be None"),
        ({"trainable_token_indices": [3]}, r"trainable_token_indices=\[3\] must be None"),
        ({"alora_invocation_tokens": [3], "task_type": "CAUSAL_LM"}, r"alora_invocation_tokens=\[3\] must be None"),
        ({"layer_replication": [[0, 2], [1, 2]]}, r"layer_replication=.* must be None"),
        ({"use_qalora": True}, r"use_qalora=True must be False"),
        (
            {"init_lora_weights": "pissa"},
            r"init_lora_weights='pissa' must be one of .*path_initial_model_for_weight_co",
        ),
        ({"init_lora_weights": "olora"}, r"init_lora_weights='olora' must be one of"),
        ({"init_lora_weights": "corda"}, r"init_lora_weights='corda' must be one of"),
        (
            {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
            r"init_lora_weights='loftq' must be one of",
        ),
        ({"r": 5}, r"q_proj has rank 4 and its config says 5; the file is broken"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:`init_lora_weights` is 'corda' but `corda_config` is not specified")  # PEFT
def test_a_lora_that_is_more_than_its_factors_is_refused_and_the_model_left_alone(tmp_path, options, text):
    make_lora(llama(), tmp_path, r=4, target_modules=["q_proj"])
    edit_config(tmp_path, **options)
    backbone = llama()
    with pytest.raises(ValueError, match=rf"loras\['kjv'\]='{tmp_path}': .*{text}"):
        from_loras(backbone, {"kjv": tmp_path})
    assert type(backbone.model.layers[0].self_attn.q_proj) is nn.Linear
    assert torch.equal(logits(backbone), logits(llama()))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (
            "model.layers.0.self_attn.q_proj.lora_B.bias",
            r"holds '.*lora_B.bias' and must hold the factors A and B al",
        ),
        ("model.layers.0.self_attn.q_proj.lora_magnitude_vector", r"holds '.*lora_magnitude_vector' and must hold"),
        ("model.embed_tokens.lora_embedding_A", r"embed_tokens must have lora_A and lora_B, found \['A'\]; the file"),
        (
            "model.embed_tokens.weight",
            r"holds 'model.embed_tokens.weight' with other values than the model, and must le",
        ),
        ("model.layers.0.self_attn.k_proj.lora_A.weight", r"k_proj must have lora_A and lora_B, found \['A'\]; the fi"),
    ],
)
def test_a_file_with_more_than_pairs_of_factors_is_refused(tmp_path, key, text):
    make_lora(llama(), tmp_path, target_modules=["q_proj"])
    edit_tensors(tmp_path, lambda tensors: tensors | {f"base_model.model.{key}": torch.ones(8, 16)})
    with pytest.raises(ValueError, match=text):
        from_loras(llama(), {"kjv": tmp_path})


def test_only_the_modules_that_were_to_be_saved_pass_as_whole_ones(tmp_path):
    make_classifiers(tmp_path, seeds=(5, 5))
    key = "base_model.model.bert.embeddings.word_embeddings.weight"
    edit_tensors(tmp_path / "0", lambda tensors: tensors | {key: torch.ones(31, 16)})
    with pytest.raises(ValueError, match=r"holds 'bert.*word_embeddings.weight' with other values than the"):
        from_loras(bert(), {"0": tmp_path / "0"})


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights")  # PEFT, while it converts
def test_a_pissa_lora_is_taken_in_once_peft_has_made_it_plain(tmp_path):
    options = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": "pissa"}
    start = get_peft_model(llama(), LoraConfig(**options))
    start.peft_config["default"].init_lora_weights = True
    start.save_pretrained(tmp_path / "start")
    start.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in start.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    wanted = logits(start.eval())
    start.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    model = from_loras(llama(), {"kjv": tmp_path / "plain"}).eval()
    torch.testing.assert_close(logits(model), wanted, atol=1e-4, rtol=1e-4)


def test_another_method_is_refused(tmp_path):
    get_peft_model(llama(), LoHaConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"loras\['kjv'\]=.*LOHA.* must be LORA; convert it with PEFT's save_as_lora"):
        from_loras(llama(), {"kjv": tmp_path})


def test_another_backbone_is_refused(tmp_path):
    make_lora(llama(), tmp_path / "wide", target_modules=["up_proj"])
    with pytest.raises(
        ValueError, match=r"\[24, 8\], and on the model's they must be \[8, 16\] and \[20, 8\]; give the"
    ):
        from_loras(llama(intermediate_size=20), {"kjv": tmp_path / "wide"})
    with pytest.raises(ValueError, match=r"the model has no module 'model.layers.1.mlp.up_proj'; give the backbone"):
        from_loras(llama(num_hidden_layers=1), {"kjv": tmp_path / "wide"})


def test_loras_of_other_backbones_by_name_are_warned_of(tmp_path):
    for name in ("a", "b"):
        make_lora(llama(), tmp_path / name, target_modules=["q_proj"])
        edit_config(tmp_path / name, base_model_name_or_path=f"org/backbone-{name}")
    with pytest.warns(
        UserWarning, match=r"backbones of other names: org/backbone-a, org/backbone-b; a LoRA is exact on"
    ):
        from_loras(llama(), {"a": tmp_path / "a", "b": tmp_path / "b"})
    edit_config(tmp_path / "b", base_model_name_or_path="/elsewhere/backbone-a")
    from_loras(llama(), {"a": tmp_path / "a", "b": tmp_path / "b"})  # one backbone, from a folder


def test_arguments_that_cannot_be_are_refused(tmp_path):
    make_lora(llama(), tmp_path, target_modules=["q_proj"])
    with pytest.raises(ValueError, match=r"loras=\{\} must hold at least one LoRA"):
        from_loras(llama(), {})
    with pytest.raises(ValueError, match=r"r=4 must be left out; the LoRAs decide what is adapted how"):
        from_loras(llama(), {"kjv": tmp_path}, r=4)
    with pytest.raises(ValueError, match=r"default_style='kvj' must be one of styles=\['kjv'\]"):
        from_loras(llama(), {"kjv": tmp_path}, default_style="kvj")
    adapted = get_peft_model(llama(), StyleAdapterConfig())
    with pytest.raises(ValueError, match=r"model must be a plain backbone and has adapters already"):
        from_loras(adapted, {"kjv": tmp_path})


def test_tasks_that_differ_must_be_chosen(tmp_path):
    make_lora(llama(), tmp_path / "a", target_modules=["q_proj"], task_type="CAUSAL_LM")
    make_lora(llama(), tmp_path / "b", target_modules=["q_proj"], task_type="FEATURE_EXTRACTION")
    folders = {"a": tmp_path / "a", "b": tmp_path / "b"}
    with pytest.raises(ValueError, match=r"task_type must agree, found .*; pass task_type=..."):
        from_loras(llama(), folders)
    assert from_loras(llama(), folders, task_type="CAUSAL_LM").peft_config["default"].task_type == "CAUSAL_LM"


class Nested(nn.Module):
    """Two Linears, the name of one the end of the other's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lin = nn.Linear(4, 4)
        self.inner = nn.ModuleDict({"lin": nn.Linear(4, 4)})

    def forward(self, x: Tensor) -> Tensor:
        return self.inner["lin"](self.lin(x).relu())


def test_a_module_whose_name_ends_alike_is_left_alone(tmp_path):
    lora = make_lora(Nested(), tmp_path, target_modules="lin")  # a regular expression: the outer one
    model = from_loras(Nested(), {"only": tmp_path}).eval()
    x = torch.randn(3, 4)
    torch.testing.assert_close(model(x), lora(x), **CLOSE)
    assert not isinstance(model.base_model.model.inner["lin"], StyleLayer)


def test_the_example_counts_each_way_and_its_mixture_leaves_exactly(tmp_path):
    found = example.main(tmp_path, steps=60)
    assert found["up in style up"] > 0.9
    assert found["down in style down"] > 0.9
    assert found["up in style down"] < 0.1
    assert found["largest difference of the exported mixture"] < 1e-4
