"""The tuner on real architectures, against PEFT's LoRA, the frozen backbone and each style on its own."""

import copy
import inspect
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from conftest import BACKBONES, STYLES, adapted, bert, gpt2, gradients, llama, randomise, t5, token_ids
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.pytorch_utils import Conv1D

from style_adapter import OFF, Style, StyleAdapterConfig, StyleAdapterModel, styled, styles_of
from style_adapter.layers import StyleLayer, StyleLinear
from style_adapter.model import head_reads
from style_adapter.model.entries import StyledCall

EXACT = {"rtol": 0, "atol": 1e-10}
NEAR = {"rtol": 1e-4, "atol": 1e-4}


def logits(model: nn.Module, ids: Tensor, **options) -> Tensor:
    """The model's logits without gradient."""
    with torch.no_grad():
        return model(input_ids=ids, **options).logits


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every adapter parameter by name."""
    return {name: p for name, p in model.named_parameters() if "style_adapter_" in name}


def loss_of(model: nn.Module, ids: Tensor, **options) -> Tensor:
    """A scalar that depends on every logit."""
    return model(input_ids=ids, **options).logits.float().square().mean()


# LoRA


def lora_and_ours(backbone, *, dtype=torch.float64, dropout: float = 0.0, **options) -> tuple[PeftModel, PeftModel]:
    """PEFT's LoRA and a style adapter of one style with the same random A and B."""
    shared = {"r": 4, "target_modules": "all-linear"} | options
    alphas = {"alpha": 8.0}
    lora = get_peft_model(copy.deepcopy(backbone), LoraConfig(lora_alpha=8.0, lora_dropout=dropout, **shared))
    ours = get_peft_model(copy.deepcopy(backbone), StyleAdapterConfig(dropout=dropout, **alphas, **shared))
    generator = torch.Generator().manual_seed(0)
    theirs, copied = dict(lora.named_parameters()), 0
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "style_adapter_A" in name or "style_adapter_B" in name:
                values = parameter.normal_(std=0.3, generator=generator)
                theirs[name.replace("style_adapter_", "lora_")].copy_(values)
                copied += 1
    assert copied == sum("lora_" in name for name in theirs) > 0
    return lora.to(dtype), ours.to(dtype)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, EXACT), (torch.float32, {"rtol": 1e-5, "atol": 1e-6})]
)
def test_gate_one_equals_peft_lora_in_logits_and_gradients(family, dtype, tolerance):
    lora, ours = lora_and_ours(BACKBONES[family](), dtype=dtype)
    assert type(next(m for m in ours.modules() if isinstance(m, StyleLayer)).base_layer) is (
        Conv1D if family == "gpt2" else nn.Linear
    )
    embeds, found = [], []
    for model in (lora, ours):
        x = model.get_input_embeddings()(token_ids(3)).detach().requires_grad_()
        output = model(inputs_embeds=x).logits
        output.square().mean().backward()
        embeds.append((output.detach(), x.grad))
        found.append(gradients(model))
    torch.testing.assert_close(*embeds, **tolerance)
    theirs = {name.replace("lora_", "style_adapter_"): grad for name, grad in found[0].items()}
    for name, grad in theirs.items():
        torch.testing.assert_close(found[1][name], grad, **tolerance)
        assert grad.abs().max() > 0
    assert {name for name in found[1] if name not in theirs} == {name for name in found[1] if "adapter_gate" in name}


def test_gate_other_than_one_is_not_lora():
    lora, ours = lora_and_ours(llama())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "adapter_gate" in name:
                parameter[0, 0] = 2.0
    assert not torch.allclose(logits(lora, token_ids(3)), logits(ours, token_ids(3)), **EXACT)


def test_equal_seeds_give_loras_own_start():
    torch.manual_seed(3)
    lora = get_peft_model(llama(), LoraConfig(r=4))
    torch.manual_seed(3)
    ours = get_peft_model(llama(), StyleAdapterConfig(r=4, styles=["a", "b"], noise_dim=2))
    theirs = dict(lora.named_parameters())
    for name, parameter in ours.named_parameters():
        if "style_adapter_A" in name or "style_adapter_B" in name:
            assert torch.equal(parameter, theirs[name.replace("style_adapter_", "lora_")])


def test_equal_masks_of_dropout_equal_peft_lora():
    lora, ours = lora_and_ours(llama(), dropout=0.5)
    outputs = []
    for model in (lora, ours):
        torch.manual_seed(5)
        outputs.append(model.train()(input_ids=token_ids(3)).logits.detach())
    torch.testing.assert_close(*outputs, **EXACT)
    torch.manual_seed(6)
    assert not torch.allclose(ours(input_ids=token_ids(3)).logits, outputs[0], **EXACT)
    torch.testing.assert_close(logits(ours.eval(), token_ids(3)), logits(lora.eval(), token_ids(3)), **EXACT)


def test_rslora_equals_peft_lora():
    lora, ours = lora_and_ours(llama(), use_rslora=True)
    torch.testing.assert_close(logits(ours, token_ids(3)), logits(lora, token_ids(3)), **EXACT)
    plain = lora_and_ours(llama())[1]
    assert not torch.allclose(logits(plain, token_ids(3)), logits(lora, token_ids(3)), **EXACT)


def test_patterns_of_ranks_and_alphas_are_honoured_as_by_peft():
    patterns = {
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "rank_pattern": {"q_proj": 2, r".*\.1\.self_attn\.v_proj": 3},
        "alpha_pattern": {"down_proj": 1.0, r"^model\.layers\.0\.self_attn\.q_proj": 5.0},
    }
    lora, ours = lora_and_ours(llama(), **patterns)
    torch.testing.assert_close(logits(ours, token_ids(3)), logits(lora, token_ids(3)), **EXACT)
    ranks = {n.split("layers.")[1]: (m.r["default"], m.alpha["default"]) for n, m in styled_layers(ours).items()}
    assert ranks == {
        "0.self_attn.q_proj": (2, 5.0),
        "1.self_attn.q_proj": (2, 8.0),
        "0.self_attn.v_proj": (4, 8.0),
        "1.self_attn.v_proj": (3, 8.0),
        "0.mlp.down_proj": (4, 1.0),
        "1.mlp.down_proj": (4, 1.0),
    }


def styled_layers(model: nn.Module) -> dict[str, StyleLinear]:
    """The adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, StyleLinear)}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 4),  # PEFT's choice for Llama: q_proj and v_proj of two blocks
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, 1),
        ({"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": "layers"}, 1),
        ({"target_modules": "all-linear", "exclude_modules": ["q_proj", "k_proj"]}, 10),
        ({"target_modules": r".*\.0\.mlp\..*_proj"}, 3),
    ],
    ids=str,
)
def test_modules_are_chosen_as_by_peft(options, count):
    ours = get_peft_model(llama(), StyleAdapterConfig(**options))
    theirs = get_peft_model(llama(), LoraConfig(**options))
    assert set(styled_layers(ours)) == {n for n, m in theirs.named_modules() if hasattr(m, "lora_A")}
    assert len(styled_layers(ours)) == count


def test_unknown_target_module_raises_pefts_own_error():
    errors = []
    for config in (LoraConfig(target_modules=["nowhere"]), StyleAdapterConfig(target_modules=["nowhere"])):
        with pytest.raises(ValueError, match=r"Target modules \{'nowhere'\} not found in the base model") as caught:
            get_peft_model(llama(), config)
        errors.append(caught.type)
    assert errors[0] is errors[1]


def test_a_module_of_an_unknown_kind_raises_and_lists_the_known():
    with pytest.raises(
        ValueError, match=r"matched model\.norm, a LlamaRMSNorm, which must be one of Linear, Conv1D, Emb"
    ):
        get_peft_model(llama(), StyleAdapterConfig(target_modules=["norm"]))


# The frozen backbone


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_strength_zero_and_off_equal_the_backbone_bitwise(family):
    backbone, ids = BACKBONES[family](), token_ids(3)
    expected, model = logits(backbone, ids), adapted(copy.deepcopy(backbone), target_modules="all-linear")
    for spec in (OFF, 0 * model.styles["kjv"], [OFF, 0 * model.styles["kjv"], {"kjv": 0.0}], OFF * 3):
        assert torch.equal(logits(model, ids, styles=spec), expected)
    assert not torch.equal(logits(model, ids), expected)


def test_off_keeps_flags_and_gradients_to_inputs(model, backbone):
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    x = [model.get_input_embeddings()(token_ids(2)).detach().requires_grad_() for _ in range(2)]
    with styled(model, OFF):
        assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
        model(inputs_embeds=x[0]).logits.square().mean().backward()
    llama()(inputs_embeds=x[1]).logits.square().mean().backward()
    assert torch.equal(x[0].grad, x[1].grad)
    assert not gradients(model)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags


def test_training_starts_at_the_backbone(ids):
    model = get_peft_model(llama(), StyleAdapterConfig(styles=STYLES, style_dim=2, noise_dim=3))
    noise = model.styles.sample_noise(3)
    assert torch.equal(logits(model, ids, styles="kjv", style_noise=noise), logits(llama(), ids))


def test_disable_adapter_is_the_backbone_and_back(model, ids):
    before = logits(model, ids, styles="kjv")
    with model.disable_adapter(), styled(model, "kjv"):
        assert torch.equal(logits(model, ids), logits(llama(), ids))
    assert torch.equal(logits(model, ids, styles="kjv"), before)


def test_only_the_adapter_is_trainable(model):
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(adapter_tensors(model))


@pytest.mark.parametrize("bias", ["all", "style_adapter_only"])
def test_biases_train_where_asked(bias):
    model = get_peft_model(gpt2(), StyleAdapterConfig(bias=bias, target_modules=["c_attn"]))
    biases = {name for name, p in model.named_parameters() if p.requires_grad and name.endswith(".bias")}
    everything = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert biases == (everything if bias == "all" else {name for name in everything if "c_attn.base_layer" in name})


# Styles


def test_a_mixture_equals_the_mixture_of_delta_weights_by_hand(ids):
    model = adapted(llama(), target_modules="all-linear").double()
    mixture, by_hand = 0.75 * model.styles["kjv"] - 0.5 * model.styles["pirate"], llama().double()
    for name, layer in styled_layers(model).items():
        bank, deltas = model.styles, {}
        for style in ("kjv", "pirate"):
            deltas[style] = layer.get_delta_weight("default", bank.code(style))
        weight = by_hand.get_parameter(name.removeprefix("base_model.model.") + ".weight")
        weight.data += 0.75 * deltas["kjv"] - 0.5 * deltas["pirate"]
    torch.testing.assert_close(logits(model, ids, styles=mixture), logits(by_hand, ids), **EXACT)
    assert not torch.allclose(logits(model, ids, styles="kjv"), logits(by_hand, ids), **EXACT)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_styles_one_a_row_equal_each_style_alone(family):
    model, ids = adapted(BACKBONES[family](), style_dim=2).double(), token_ids(5)
    f = Style({"kjv": 0.5}, torch.tensor([1.0, -1.0]))
    specs = ["pirate", {"modern": 0.5, "kjv": 0.25}, 2, f, OFF]
    together = logits(model, ids, styles=specs)
    alone = torch.cat([logits(model, row[None], styles=spec) for row, spec in zip(ids, specs, strict=True)])
    torch.testing.assert_close(together, alone, **EXACT)
    same = logits(model, ids[:1].expand(5, -1), styles=specs)
    assert not any(torch.allclose(same[i], same[j], **NEAR) for i in range(5) for j in range(i) if {i, j} != {0, 2})


def test_all_ways_to_name_a_style_agree(model, ids):
    bank = model.styles
    expected = logits(model, ids, styles="kjv")
    ways = (1, bank["kjv"], {"kjv": 1.0}, ["kjv"] * 3, [1, "kjv", bank["kjv"]], torch.tensor([1, 1, 1]))
    for spec in (*ways, {"default": "kjv"}, {"default": torch.tensor([1, 1, 1])}, bank.code("kjv")):
        assert torch.equal(logits(model, ids, styles=spec), expected)
    with model.styled("kjv"):
        assert torch.equal(logits(model, ids), expected)
    with styled(model.get_base_model(), "kjv"):
        assert torch.equal(logits(model.get_base_model(), ids), expected)
    assert not torch.equal(logits(model, ids), expected)


def test_default_style_is_in_force_where_none_is_given(ids):
    model = adapted(llama(), default_style="pirate")
    assert torch.equal(logits(model, ids), logits(model, ids, styles="pirate"))
    assert not torch.equal(logits(model, ids), logits(model, ids, styles="modern"))


def test_styled_restores_after_an_error_and_when_nested(model, ids):
    expected = {spec: logits(model, ids, styles=spec) for spec in (None, "kjv", "pirate")}

    def fail_inside() -> None:
        with model.styled("pirate"):
            assert torch.equal(logits(model, ids), expected["pirate"])
            raise RuntimeError("stop")

    with model.styled("kjv"):
        with pytest.raises(RuntimeError, match="stop"):
            fail_inside()
        assert torch.equal(logits(model, ids), expected["kjv"])
        assert torch.equal(logits(model, ids, styles="pirate"), expected["pirate"])
        with pytest.raises(ValueError, match="klingon"):
            logits(model, ids, styles="klingon")
        assert torch.equal(logits(model, ids), expected["kjv"])
    assert torch.equal(logits(model, ids), expected[None])


def test_noise_varies_the_output_row_by_row(ids):
    model = adapted(llama(), noise_dim=4).double()
    z = model.styles.sample_noise(3)
    together = logits(model, ids, styles="kjv", style_noise=z)
    alone = [logits(model, row[None], styles="kjv", style_noise=n[None]) for row, n in zip(ids, z, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), **EXACT)
    assert not torch.allclose(together, logits(model, ids, styles="kjv"), **NEAR)
    assert torch.equal(logits(model, ids, styles="kjv", style_noise=0 * z), logits(model, ids, styles="kjv"))


def test_styles_of_an_encoder_classifier_equal_each_style_alone():
    model, ids = adapted(bert(), task_type="SEQ_CLS").double(), token_ids(3)
    together = logits(model, ids, styles=STYLES)
    alone = torch.cat([logits(model, row[None], styles=style) for row, style in zip(ids, STYLES, strict=True)])
    torch.testing.assert_close(together, alone, **EXACT)
    assert any(p.requires_grad for n, p in model.named_parameters() if "classifier.modules_to_save" in n)
    assert not torch.allclose(together, logits(model, ids, styles="modern"), **NEAR)


def test_signature_of_the_inner_forward_shows_styles(model):
    inner = model.get_base_model()
    shown = list(inspect.signature(inner.forward).parameters)
    assert set(shown) == {*inspect.signature(llama().forward).parameters, "styles"}


def test_switching_styles_neither_copies_nor_writes_a_weight(ids):
    model = adapted(llama(), styles=STYLES)
    before = {name: (p.data_ptr(), p._version) for name, p in model.named_parameters()}
    for style in (*STYLES, OFF, "0.5*" + STYLES[0], [STYLES[0]] * len(ids)):
        logits(model, ids, styles=style)
    assert {name: (p.data_ptr(), p._version) for name, p in model.named_parameters()} == before


# The head


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_head_reads_what_was_chosen_inside_the_block_alone(family):
    model, ids = adapted(BACKBONES[family]()), token_ids(3)
    inputs = {"decoder_input_ids": ids} if family == "t5" else {}
    full = logits(model, ids, **inputs)
    with head_reads(model, lambda hidden: hidden[:, -1:]):
        torch.testing.assert_close(logits(model, ids, **inputs), full[:, -1:])
    with pytest.raises(RuntimeError, match="stop"), head_reads(model.get_base_model(), fail):
        logits(model, ids, **inputs)
    assert torch.equal(logits(model, ids, **inputs), full)


def fail(hidden: Tensor) -> Tensor:
    """A choice that raises."""
    raise RuntimeError("stop")


def test_head_reads_leaves_a_model_without_a_head_over_words_alone(ids):
    model = adapted(bert())
    with head_reads(model, fail):
        assert logits(model, ids).shape == (3, 3)


# Errors


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ("klingon", ValueError, "styles='klingon' must be one of the adapter's styles: modern, kjv, pirate; check"),
        (["kjv", "pirate"], ValueError, "2 styles for a batch of 16 rows; give one style for the batch or exactly 16"),
        (torch.tensor([0, 1]), ValueError, "2 styles for a batch of 16 rows"),
        (["kjv"] * 17, ValueError, "17 styles for a batch of 16 rows"),
        (Style(features=torch.ones(2)), ValueError, r"features of shape \[2\] must be \[style_dim\] = \[0\]"),
        ({"text_style": "klingon"}, ValueError, "styles='klingon' must be one of"),
        ({"secnod": "kjv"}, ValueError, "the key 'secnod' must be an adapter of the model"),
        ({}, ValueError, "must name at least one style; use OFF"),
        (0.5, TypeError, "styles=0.5 must be a name, a Style, a row number"),
    ],
    ids=str,
)
def test_bad_styles_raise_with_their_bound_and_remedy(model, spec, error, text):
    with pytest.raises(error, match=text):
        logits(model, token_ids(16), styles=spec)


def test_noise_of_a_wrong_width_or_without_styles_raises(model, ids):
    with pytest.raises(
        ValueError, match=r"noise of shape \[3, 2\] must be \[rows, noise_dim\] = \[rows, 0\]; set nois"
    ):
        logits(model, ids, styles="kjv", style_noise=torch.ones(3, 2))
    with pytest.raises(
        ValueError, match="style_noise and style_strength must come with styles; name the style they vary"
    ):
        logits(model, ids, style_noise=torch.ones(3, 2))


@pytest.mark.parametrize(
    "call", [styles_of, lambda model: styled(model, "kjv").__enter__()], ids=["styles_of", "styled"]
)
def test_a_model_without_adapter_raises_with_the_remedy(call):
    with pytest.raises(ValueError, match="model=Linear must have a style adapter; add one with get_peft_model"):
        call(nn.Linear(2, 2))


# Merge


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_equals_unmerged_and_unmerge_restores(family):
    model, ids = adapted(BACKBONES[family](), target_modules="all-linear"), token_ids(3)
    weights = {name: p.clone() for name, p in model.named_parameters()}
    mixture = 0.5 * model.styles["kjv"] + 0.25 * model.styles["pirate"]
    before = logits(model, ids, styles=mixture)
    with model.styled("modern"):
        with model.styled(mixture):
            model.merge_adapter()
        torch.testing.assert_close(logits(model, ids), before, **NEAR)
        assert not torch.allclose(before, logits(BACKBONES[family](), ids), **NEAR)
        model.unmerge_adapter()  # what is in force now is not what was merged
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(model, ids, styles=mixture), before, **NEAR)


def test_a_merged_model_refuses_another_style_until_it_is_unmerged(ids):
    model = get_peft_model(llama(), StyleAdapterConfig(styles=["modern", "kjv"], r=4, init_weights=False)).eval()
    kjv = model(ids, styles="kjv").logits
    with model.styled("modern"):
        model.merge_adapter()
    with pytest.raises(ValueError, match=r"a merged model has the style it was merged in; call unmerge_adapter\(\)"):
        model(ids, styles="kjv")
    model.unmerge_adapter()
    torch.testing.assert_close(model(ids, styles="kjv").logits, kjv, atol=1e-4, rtol=1e-4)


def test_merge_and_unload_leaves_the_plain_model(ids):
    model = adapted(llama(), target_modules="all-linear")
    checkpoint(model)
    with model.styled("kjv"):
        before = logits(model, ids)
        plain = model.merge_and_unload()
    torch.testing.assert_close(logits(plain, ids), before, **NEAR)
    assert_plain(plain, llama())


def test_unload_leaves_the_backbone(model, ids):
    logits(model.train(), ids)
    plain = model.unload().eval()
    assert torch.equal(logits(plain, ids), logits(llama(), ids))
    assert_plain(plain, llama())


def assert_plain(model: nn.Module, reference: nn.Module) -> None:
    """`model` is made of the same modules as `reference`, with no trace of the adapter."""
    assert [(n, type(m)) for n, m in model.named_modules()] == [(n, type(m)) for n, m in reference.named_modules()]
    assert not any("forward" in module.__dict__ or "generate" in module.__dict__ for module in model.modules())
    traces = [v for m in model.modules() for v in m.__dict__.values() if "style_adapter" in type(v).__module__]
    assert not traces
    with pytest.raises(ValueError, match=r"not used by the model: .'styles'"):
        model.generate(input_ids=token_ids(1), styles="kjv", max_new_tokens=1)


def test_unload_gives_back_an_instance_level_forward(backbone, ids):
    calls = []
    original = backbone.forward
    backbone.forward = mine = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)
    model = adapted(backbone)
    logits(model, ids, styles="kjv")
    assert calls == [1]
    assert model.unload().forward is mine


def test_merging_a_batch_of_different_styles_raises_and_changes_nothing(model, ids):
    before = logits(model, ids)
    with model.styled(STYLES), pytest.raises(ValueError, match="3 styles must be 1 to merge or export; choose one"):
        model.merge_adapter()
    assert torch.equal(logits(model, ids), before)


def test_a_repacked_four_bit_weight_stops_a_merge_before_the_first_layer(model):
    *_, last = styled_layers(model).values()
    weights = {name: p.clone() for name, p in model.named_parameters()}
    last.base_layer.weight.quant_state = type("State", (), {"packing_format_for_cpu": True})()
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(
            ValueError, match=r"4-bit base weight must not be repacked, .* export the style with export_lo"
        ):
            merge()
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert isinstance(next(iter(styled_layers(model).values())), StyleLinear)


# Saving


@pytest.fixture(scope="session")
def saved_backbone(tmp_path_factory) -> str:
    """A folder with the tiny Llama."""
    folder = tmp_path_factory.mktemp("backbone")
    llama().save_pretrained(folder)
    return str(folder)


OPTIONS = {"style_dim": 2, "noise_dim": 3, "noise_type": "uniform", "default_style": "pirate", "prompt": "<{source}>"}


@pytest.mark.parametrize("way", ["PeftModel", "low_cpu_mem_usage", "AutoPeftModel", "load_adapter"])
def test_a_loaded_adapter_gives_equal_bits(saved_backbone, tmp_path, ids, way):
    model = adapted(type(llama()).from_pretrained(saved_backbone), task_type="CAUSAL_LM", **OPTIONS)
    model.save_pretrained(tmp_path)
    fresh = type(llama()).from_pretrained(saved_backbone)
    if way == "AutoPeftModel":
        loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path)
    elif way == "load_adapter":
        loaded = fresh
        loaded.load_adapter(tmp_path)
    else:
        loaded = PeftModel.from_pretrained(fresh, tmp_path, low_cpu_mem_usage=way == "low_cpu_mem_usage")
    loaded.eval()
    assert styles_of(loaded) == model.styles
    style = [Style({"kjv": 0.5}, torch.tensor([1.0, 2.0])), "modern", OFF]
    z = torch.rand(3, 3)
    for options in ({}, {"styles": style, "style_noise": z}):
        assert torch.equal(logits(loaded, ids, **options), logits(model, ids, **options))
    if way != "load_adapter":
        config = loaded.peft_config["default"]
        assert {n: getattr(config, n) for n in OPTIONS} == OPTIONS
        assert config.styles == STYLES
        assert not any(p.requires_grad for p in loaded.parameters())


def test_a_new_process_gives_equal_bits_from_the_folder_alone(saved_backbone, tmp_path, ids):
    model = adapted(type(llama()).from_pretrained(saved_backbone), task_type="CAUSAL_LM", **OPTIONS)
    model.save_pretrained(tmp_path)
    torch.save({"ids": ids, "logits": logits(model, ids, styles=STYLES)}, tmp_path / "expected.pt")
    code = """
import sys, torch, style_adapter
from peft import AutoPeftModelForCausalLM
expected, model = torch.load(sys.argv[1] + "/expected.pt"), AutoPeftModelForCausalLM.from_pretrained(sys.argv[1])
with torch.no_grad():
    found = model.eval()(input_ids=expected["ids"], styles=list(model.styles)).logits
assert torch.equal(found, expected["logits"]), "other bits"
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_trained_head_and_biases_travel_with_the_adapter(tmp_path, ids):
    model = adapted(bert(), task_type="SEQ_CLS", bias="style_adapter_only")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "style_adapter" not in name:
                parameter.normal_()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(bert(), tmp_path).eval()
    assert torch.equal(logits(loaded, ids, styles=STYLES), logits(model, ids, styles=STYLES))
    assert not torch.equal(logits(adapted(bert()), ids, styles=STYLES), logits(model, ids, styles=STYLES))


@pytest.mark.filterwarnings("ignore:.*should not be contained in the prefix")  # PEFT, and it works
@pytest.mark.parametrize("name", ["style", "a", "A", "adapter", "gate"])
def test_an_adapter_name_inside_the_prefix_travels_too(tmp_path, ids, name):
    model = randomise(get_peft_model(llama(), StyleAdapterConfig(styles=STYLES), adapter_name=name)).eval()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(), tmp_path / name, adapter_name=name).eval()
    assert torch.equal(logits(loaded, ids, styles="kjv"), logits(model, ids, styles="kjv"))
    assert adapter_tensors(loaded).keys() == adapter_tensors(model).keys()


# Several adapters


@pytest.fixture
def two(backbone) -> PeftModel:
    """A model with the adapter `default` active and another, `second`, of styles kjv and robot."""
    model = adapted(backbone)
    model.add_adapter("second", StyleAdapterConfig(styles=["kjv", "robot"], r=2, target_modules="all-linear"))
    return randomise(model, seed=1).eval()


def deltas(model: nn.Module, **specs) -> nn.Module:
    """The backbone in fp64 with the delta weights of some adapters added by hand."""
    plain = llama().double()
    for name, layer in styled_layers(model).items():
        for adapter, spec in specs.items():
            if adapter in layer.r:
                code = layer.style_context.banks[adapter].code(spec)
                plain.get_parameter(name.removeprefix("base_model.model.") + ".weight").data += layer.get_delta_weight(
                    adapter, code
                )
    return plain


def activate(model: PeftModel, *names: str) -> PeftModel:
    """Makes several adapters active at once."""
    model.base_model.set_adapter(list(names))
    return model


def test_a_further_adapter_trains_and_speaks_once_it_is_active(two, ids):
    trainable = {n for n, p in two.named_parameters() if p.requires_grad}
    assert trainable == {n for n in adapter_tensors(two) if ".default." in n}
    assert list(two.styles) == STYLES
    first = logits(two, ids)
    two.set_adapter("second")
    assert {n for n, p in two.named_parameters() if p.requires_grad} == {
        n for n in adapter_tensors(two) if ".second." in n
    }
    assert list(two.styles) == ["kjv", "robot"]
    assert not torch.allclose(logits(two, ids), first, **NEAR)
    two.set_adapter("default")
    assert torch.equal(logits(two, ids), first)


def test_two_active_adapters_add_their_updates(two, ids):
    model = activate(two.double(), "default", "second")
    assert list(model.styles) == [*STYLES, "robot"]
    for spec, parts in [
        ({"default": "pirate", "second": "robot"}, {"default": "pirate", "second": "robot"}),
        ("robot", {"default": "modern", "second": "robot"}),  # the other keeps its default
        ("kjv", {"default": "kjv", "second": "kjv"}),  # a name of both
        ({"pirate": 0.5, "robot": 0.25}, {"default": {"pirate": 0.5}, "second": {"robot": 0.25}}),
        ({"default": OFF}, {"default": OFF, "second": "kjv"}),
        (OFF, {}),
        (None, {"default": "modern", "second": "kjv"}),
    ]:
        torch.testing.assert_close(logits(model, ids, styles=spec), logits(deltas(model, **parts), ids), **EXACT)


def test_two_active_adapters_take_one_style_a_row(two, ids):
    model = activate(two.double(), "default", "second")
    together = logits(model, ids, styles=["pirate", "robot", OFF])
    alone = [logits(model, row[None], styles=s) for row, s in zip(ids, ["pirate", "robot", OFF], strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), **EXACT)


@pytest.mark.parametrize("spec", [0, [0, 1, 2], torch.tensor([0, 1, 2]), ["kjv", 1, "kjv"]], ids=str)
def test_row_numbers_with_two_active_adapters_raise(two, ids, spec):
    activate(two, "default", "second")
    with pytest.raises(
        ValueError, match="row numbers, features and noise must address one adapter, 2 are active; write"
    ):
        logits(two, ids, styles=spec)
    assert logits(two, ids, styles={"second": torch.tensor([0, 1, 0])}).shape[0] == 3


def test_a_name_unknown_to_all_active_adapters_raises(two, ids):
    activate(two, "default", "second")
    with pytest.raises(ValueError, match="'klingon' must be one of the adapter's styles: modern, kjv, pirate, robot;"):
        logits(two, ids, styles="klingon")
    with pytest.raises(ValueError, match="'robot' must be one of the adapter's styles: modern, kjv, pirate;"):
        logits(two, ids, styles={"default": "robot"})


def test_noise_and_features_with_two_active_adapters_address_one(ids):
    model = adapted(llama(), style_dim=2, noise_dim=3)
    model.add_adapter("second", StyleAdapterConfig(styles=["robot"]))
    activate(randomise(model).double(), "default", "second")
    z, f = torch.randn(1, 3), Style({"kjv": 1.0}, torch.ones(2))
    text = "row numbers, features and noise must address one adapter, 2 are active; write {adapter: styles}"
    for options in ({"styles": "kjv", "style_noise": z}, {"styles": f}):
        with pytest.raises(ValueError, match=text):
            logits(model, ids, **options)
    plain = logits(model, ids, styles={"default": "kjv", "second": "robot"})
    noisy = logits(model, ids, styles={"default": f, "second": "robot"}, style_noise=z)
    assert not torch.allclose(noisy, plain, **NEAR)


def test_deleting_an_adapter_leaves_the_other_as_it_was(two, ids):
    expected = logits(two, ids, styles="pirate")
    two.delete_adapter("second")
    assert torch.equal(logits(two, ids, styles="pirate"), expected)
    assert not any("second" in name for name, _ in two.named_parameters())
    with pytest.raises(ValueError, match="the key 'second' must be an adapter of the model"):
        logits(two, ids, styles={"second": "robot"})


def test_deleting_the_active_adapter_makes_the_other_speak(two, ids):
    two.set_adapter("second")
    expected = logits(two, ids, styles="robot")
    activate(two, "default", "second")
    two.delete_adapter("default")
    assert list(two.styles) == ["kjv", "robot"]
    assert torch.equal(logits(two, ids, styles="robot"), expected)


# Generation


def generated(model: nn.Module, ids: Tensor, **options) -> Tensor:
    """Greedy new tokens, or as `options` say."""
    new = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **{"max_new_tokens": 6, "do_sample": False} | options
    )
    return new if model.get_base_model().config.is_encoder_decoder else new[:, ids.shape[1] :]


BEAMS = {"num_beams": 3, "num_return_sequences": 2}


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, BEAMS], ids=["greedy", "beams", "beams and sequences"])
def test_generation_of_each_row_equals_that_row_alone_in_its_style(family, options):
    task = "SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM"
    model = adapted(BACKBONES[family](), task_type=task, target_modules="all-linear").double()
    ids = token_ids(1).expand(3, -1)  # equal inputs: only the styles differ
    together = generated(model, ids, styles=STYLES, **options)
    alone = torch.cat([generated(model, row[None], styles=s, **options) for row, s in zip(ids, STYLES, strict=True)])
    assert torch.equal(together, alone)
    per_row = together.view(3, -1, together.shape[1])
    assert not torch.equal(per_row[0], per_row[1])
    with model.styled(STYLES):
        assert torch.equal(generated(model, ids, **options), together)


def test_sampled_sequences_keep_their_rows_style():
    model = adapted(llama(), target_modules="all-linear").double()
    loud = randomise(model, seed=2)
    styles = [1, OFF]
    torch.manual_seed(0)
    new = generated(loud, token_ids(2), styles=styles, do_sample=True, temperature=1e-4, num_return_sequences=3)
    greedy = generated(loud, token_ids(2), styles=styles)
    assert torch.equal(new, greedy.repeat_interleave(3, dim=0))


@pytest.mark.parametrize("way", ["keyword", "positional", "partial", "model"])
def test_the_number_of_beams_is_found_wherever_transformers_finds_it(way):
    model, ids = adapted(llama()).double(), token_ids(2)
    expected = generated(model, ids, styles=STYLES[:2], **BEAMS)
    inner, mask = model.get_base_model(), torch.ones_like(ids)
    config = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0, **BEAMS)
    if way == "keyword":
        new = inner.generate(ids, attention_mask=mask, generation_config=config, styles=STYLES[:2])
    elif way == "positional":
        new = inner.generate(ids, config, attention_mask=mask, styles=STYLES[:2])
    elif way == "model":
        inner.generation_config = config
        new = inner.generate(ids, attention_mask=mask, styles=STYLES[:2])
    else:  # what the given configuration leaves open, the model's own decides
        inner.generation_config = config
        new = inner.generate(
            ids, attention_mask=mask, generation_config=GenerationConfig(max_new_tokens=6), styles=STYLES[:2]
        )
    assert torch.equal(new[:, ids.shape[1] :], expected)


def test_the_wrong_number_of_styles_stops_generation():
    model = adapted(llama())
    with pytest.raises(ValueError, match=r"2 styles for a batch of 3 rows"):
        generated(model, token_ids(3), styles=["kjv", "modern"])
    with pytest.raises(ValueError, match="3 styles for a batch of 4 rows"):
        generated(model, token_ids(2), styles=STYLES, num_beams=2)


def test_encoder_and_decoder_both_speak_the_rows_style():
    model, ids = adapted(t5(), target_modules="all-linear").double(), token_ids(3)
    inner = model.get_base_model()
    with model.styled(STYLES):
        together = inner.get_encoder()(input_ids=ids).last_hidden_state
    for row, style, states in zip(ids, STYLES, together, strict=True):
        with model.styled(style):
            torch.testing.assert_close(inner.get_encoder()(input_ids=row[None]).last_hidden_state[0], states, **EXACT)


# Without the tuner


def test_injected_adapter_has_the_same_styles_without_a_peft_model(model, ids):
    injected = randomise(inject_adapter_in_model(StyleAdapterConfig(styles=STYLES, r=4, alpha=8.0), llama())).eval()
    assert list(styles_of(injected)) == STYLES
    for spec in (None, "kjv", STYLES):
        assert torch.equal(logits(injected, ids, styles=spec), logits(model, ids, styles=spec))
    with styled(injected, "kjv"):
        assert torch.equal(logits(injected, ids), logits(model, ids, styles="kjv"))
        new = injected.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
    assert torch.equal(new, model.generate(input_ids=ids, max_new_tokens=3, do_sample=False, styles="kjv"))


def test_transformers_add_adapter_twice_has_both_adapters(model, ids):
    inner = llama()
    inner.add_adapter(StyleAdapterConfig(styles=STYLES, r=4, alpha=8.0), "first")
    randomise(inner).eval()
    expected = logits(model, ids, styles="kjv")
    assert torch.equal(logits(inner, ids, styles="kjv"), expected)
    inner.add_adapter(StyleAdapterConfig(styles=["robot"], r=2), "second")
    assert list(styles_of(inner)) == ["robot"]
    with pytest.raises(ValueError, match="'kjv' must be one of"):
        logits(inner, ids, styles="kjv")
    inner.set_adapter("first")
    assert torch.equal(logits(inner, ids, styles="kjv"), expected)
    inner.set_adapter(["first", "second"])
    assert list(styles_of(inner)) == [*STYLES, "robot"]
    entry = inner.__dict__["forward"]
    assert isinstance(entry, StyledCall)
    assert entry.shadowed is None  # opened once, not twice
    inner.delete_adapter("second")
    assert torch.equal(logits(inner, ids, styles="kjv"), expected)


# Gradient checkpointing


def checkpoint(model: nn.Module, reentrant: bool = False) -> None:
    """Turns gradient checkpointing on, by the name it has in the installed transformers."""
    newest_first = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(getattr(model, name) for name in newest_first if hasattr(model, name))
    enable({"use_reentrant": reentrant})


def accumulated(model: PeftModel, *, batches: int = 1, inside: bool = False) -> dict[str, Tensor]:
    """Gradients of forwards in different styles whose backwards run after the blocks, or inside another's block."""
    model.train().zero_grad()
    losses = []
    for i, spec in enumerate((STYLES, 0.5 * model.styles["kjv"])[:batches]):
        with model.styled(spec):
            losses.append(loss_of(model, token_ids(3, seed=i)))
    with model.styled("pirate" if inside else "modern"):
        sum(losses).backward()
    return gradients(model)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("enabled", ["before", "after"])
def test_checkpointing_sees_the_same_style(family, reentrant, enabled):
    expected = accumulated(adapted(BACKBONES[family]()), batches=2)
    backbone = BACKBONES[family]()
    if enabled == "before":
        checkpoint(backbone, reentrant)
    model = adapted(backbone)
    if enabled == "after":
        model.enable_input_require_grads()
        checkpoint(model, reentrant)
    counted = count_forwards(model)
    found = accumulated(model, batches=2, inside=True)
    assert counted() > 2  # it did recompute
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6)
        assert grad.abs().max() > 0


def count_forwards(model: nn.Module):
    """How often the first adapted layer ran."""
    calls = []
    next(iter(styled_layers(model).values())).register_forward_pre_hook(lambda *_: calls.append(1))
    return lambda: len(calls)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_backward_in_another_thread_sees_the_same_style(reentrant):
    expected, model = accumulated(adapted(llama())), adapted(llama()).train()
    model.enable_input_require_grads()
    checkpoint(model, reentrant)
    with model.styled(STYLES):
        loss = loss_of(model, token_ids(3))
    with ThreadPoolExecutor(1) as pool:  # as autograd does on a GPU
        pool.submit(loss.backward).result()
    found = gradients(model)
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6)


def test_checkpointing_set_anew_between_two_steps_sees_the_same_style():
    model, expected = adapted(llama()), accumulated(adapted(llama()))
    for _ in range(2):  # as Trainer does at each start
        checkpoint(model)
        found = accumulated(model)
        for name, grad in expected.items():
            torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6)


def test_checkpointing_with_styles_as_a_keyword_sees_the_same_style(ids):
    found = []
    for checkpointing in (False, True):
        model = adapted(llama()).train()
        if checkpointing:
            checkpoint(model)
        loss_of(model, ids, styles=STYLES).backward()
        found.append(gradients(model))
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-4, atol=1e-6)


def test_checkpointing_gives_features_their_gradient(ids):
    found = []
    for checkpointing in (False, True):
        model, f = adapted(llama(), style_dim=2).train(), torch.tensor([1.0, -1.0], requires_grad=True)
        if checkpointing:
            checkpoint(model)
        with model.styled(Style({"kjv": 1.0}, 2.0 * f)):
            loss = loss_of(model, ids)
        loss.backward()
        found.append(f.grad)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert found[0].abs().min() > 0


def test_off_under_checkpointing_stays_off(ids):
    model = adapted(llama()).train()
    checkpoint(model)
    x = model.get_input_embeddings()(ids).detach().requires_grad_()
    with model.styled(OFF):
        loss = model(inputs_embeds=x).logits.square().mean()
    loss.backward()
    plain = x.detach().clone().requires_grad_()
    llama()(inputs_embeds=plain).logits.square().mean().backward()
    torch.testing.assert_close(x.grad, plain.grad, rtol=1e-5, atol=1e-7)
    assert not gradients(model)


# Threads and copies


def test_threads_serve_different_styles_at_once(model, ids):
    expected, barrier = {s: logits(model, ids, styles=s) for s in STYLES}, Barrier(3)

    def serve(style: str) -> bool:
        with model.styled(style):
            barrier.wait()
            return all(torch.equal(logits(model, ids), expected[style]) for _ in range(5))

    with ThreadPoolExecutor(3) as pool, model.styled(OFF):
        assert all(pool.map(serve, STYLES))
        assert torch.equal(logits(model, ids), logits(llama(), ids))


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("tuned", [True, False], ids=["PeftModel", "injected"])
def test_a_copy_is_bound_to_itself(model, ids, travel, tuned):
    original = model if tuned else model.get_base_model()
    logits(original, ids)
    with styled(original, "pirate"):
        twin = travel(original)
    expected = logits(original, ids, styles="kjv")
    assert torch.equal(logits(twin, ids, styles="kjv"), expected)
    with styled(original, "kjv"), torch.no_grad():
        for parameter in adapter_tensors(twin).values():
            parameter.zero_()
        assert torch.equal(logits(twin, ids), logits(llama(), ids))
        assert torch.equal(logits(original, ids), expected)
    inner = twin.get_base_model() if tuned else twin
    assert inner.__dict__["forward"].model is inner
    assert inner.__dict__["generate"].model is inner
    assert inner.__dict__["forward"].context is next(iter(styled_layers(twin).values())).style_context


def test_a_copied_checkpointing_model_recomputes_in_its_own_style(ids):
    model = adapted(llama()).train()
    checkpoint(model)
    expected = accumulated(model)
    found = accumulated(copy.deepcopy(model))
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad)


# Training


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bert"])
def test_every_trainable_tensor_gets_a_gradient_within_three_steps(family):
    task = {"bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}.get(family, "CAUSAL_LM")
    options = {"styles": STYLES, "r": 2, "style_dim": 2, "noise_dim": 3, "target_modules": "all-linear"}
    model = get_peft_model(BACKBONES[family](), StyleAdapterConfig(task_type=task, **options)).train()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {n.split("style_adapter_")[1].split(".")[0] for n in trainable if "style_adapter_" in n} == {
        "A",
        "B",
        "gate",
        "feature",
        "noise",
    }
    optimizer, seen = torch.optim.SGD(trainable.values(), lr=0.1), set()
    ids = token_ids(3)
    labels = torch.tensor([0, 1, 2]) if family == "bert" else ids
    style = [name + Style(features=torch.ones(2)) for name in map(model.styles.__getitem__, STYLES)]
    for step in range(3):
        noise = model.styles.sample_noise(3, generator=torch.Generator().manual_seed(step))
        model(input_ids=ids, labels=labels, styles=style, style_noise=noise).loss.backward()
        seen |= {name for name, p in trainable.items() if p.grad is not None and p.grad.abs().max() > 0}
        optimizer.step()
        optimizer.zero_grad()
    assert seen == set(trainable)


def test_training_one_style_leaves_the_gates_of_the_others_bitwise(model, ids):
    before = {name: p.detach().clone() for name, p in adapter_tensors(model).items()}
    gates = [p for name, p in adapter_tensors(model).items() if "adapter_gate" in name]
    loss_of(model.train(), ids, styles="kjv").backward()
    torch.optim.SGD(gates, lr=0.1).step()
    for name, parameter in adapter_tensors(model).items():
        if "adapter_gate" in name:
            assert torch.equal(parameter[[0, 2]], before[name][[0, 2]])
            assert not torch.equal(parameter[1], before[name][1])


def test_equal_seeds_give_equal_bits_on_a_model():
    def drawn(seed: int, **options) -> list[Tensor]:
        torch.manual_seed(seed)
        model = get_peft_model(llama(), StyleAdapterConfig(styles=STYLES, noise_dim=2, **options))
        return list(adapter_tensors(model).values())

    for options in ({}, {"init_weights": False}):
        assert all(map(torch.equal, drawn(3, **options), drawn(3, **options)))
        assert not all(map(torch.equal, drawn(3, **options), drawn(4, **options)))


def test_init_weights_false_draws_b_and_so_leaves_the_backbone(ids):
    model = get_peft_model(llama(), StyleAdapterConfig(init_weights=False)).eval()
    assert all(p.count_nonzero() == p.numel() for p in adapter_tensors(model).values())
    assert not torch.allclose(logits(model, ids), logits(llama(), ids), **NEAR)


def test_half_precision_backbone_trains_an_fp32_adapter(ids):
    model = adapted(llama().to(torch.bfloat16)).train()
    assert {p.dtype for p in adapter_tensors(model).values()} == {torch.float32}
    output = model(input_ids=ids, styles=STYLES).logits
    assert output.dtype == torch.bfloat16
    output.float().square().mean().backward()
    assert gradients(model).keys() == adapter_tensors(model).keys()
    near = adapted(llama())
    torch.testing.assert_close(output.float(), logits(near, ids, styles=STYLES), rtol=0.1, atol=0.2)


# 4 bits


@pytest.fixture
def four_bit() -> PeftModel:
    """A Llama of width 64 whose linear layers are quantised to 4 bits on the CPU, with an adapter."""
    bnb = pytest.importorskip("bitsandbytes")
    backbone = llama(hidden_size=64, intermediate_size=64, num_key_value_heads=2)
    for parent in [m for m in backbone.modules() if not isinstance(m, nn.Linear)]:
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and name != "lm_head":
                quantised = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
                quantised.load_state_dict(child.state_dict())
                setattr(parent, name, quantised)
    return adapted(backbone.to("cpu"), target_modules="all-linear", exclude_modules=["lm_head"])


def test_four_bit_base_trains_the_adapter_alone_also_after_an_evaluation(four_bit, ids):
    before = accumulated(four_bit)
    assert before.keys() == adapter_tensors(four_bit).keys()
    assert all(grad.abs().max() > 0 for grad in before.values())
    four_bit.eval()
    logits(four_bit, ids, styles="kjv")
    after = accumulated(four_bit)
    for name, grad in before.items():
        torch.testing.assert_close(after[name], grad)


def test_four_bit_base_merges_near_the_sum_also_after_a_forward(four_bit, ids):
    before, plain = logits(four_bit, ids, styles="kjv"), logits(four_bit, ids, styles=OFF)
    with four_bit.styled("kjv"), pytest.warns(UserWarning, match="is rounded as W was"):
        four_bit.merge_adapter()
    error = (logits(four_bit, ids) - before).norm()
    assert error < 0.6 * (plain - before).norm()  # rounding to 4 bits again; what was merged is larger


def test_a_trainable_adapter_on_a_repacked_base_raises_with_the_remedy(four_bit):
    backbone = four_bit.unload()
    layer = backbone.model.layers[0].self_attn.q_proj
    layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(
        ValueError, match=r"4-bit weights must not be repacked for a trainable adapter, .* load the model"
    ):
        get_peft_model(backbone, StyleAdapterConfig())
    frozen = get_peft_model(backbone, StyleAdapterConfig(inference_mode=True))
    assert isinstance(frozen.base_model, StyleAdapterModel)
