"""Bases of 8 and 4 bits on the CPU: the update, its training, and merges, which round; against dequantised weights."""

import copy
from functools import partial

import pytest
import torch
from conftest import STYLES, adapted, gradients, llama, randomise, token_ids
from kind_fixtures import Around, style_model, tensors
from peft import PeftModel, get_peft_model
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from style_adapter import OFF, StyleAdapterConfig, export_lora
from style_adapter.layers import StyleLayer, tables

bnb = pytest.importorskip("bitsandbytes")
SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 2, "num_hidden_layers": 1}
ROUNDS = (
    "merge: the base is quantised .* is rounded as W was: .* call dequantize.* on the model first, or load the base"
)


def four_bits(quant_type: str, *, twice: bool = False) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=twice,
        bnb_4bit_compute_dtype=torch.float32,
    )


# the configuration, PEFT's name of it, and how far a merge may be from the sum
QUANTISED = {
    "int8": (BitsAndBytesConfig(load_in_8bit=True), "bnb 8bit", 0.02),
    "nf4": (four_bits("nf4"), "bnb 4bit", 0.15),
    "nf4 twice": (four_bits("nf4", twice=True), "bnb 4bit", 0.15),
    "fp4": (four_bits("fp4"), "bnb 4bit", 0.2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of width 64, saved in full."""
    folder = tmp_path_factory.mktemp("backbone")
    llama(**SIZES).save_pretrained(folder)
    return folder


@pytest.fixture(params=QUANTISED)
def how(request):
    return QUANTISED[request.param]


@pytest.fixture
def load(folder, how):
    """Loads the Llama quantised, as transformers does."""
    return lambda: AutoModelForCausalLM.from_pretrained(folder, quantization_config=how[0], dtype=torch.float32).eval()


@pytest.fixture
def ids():
    return token_ids(3)


def layers_of(model: nn.Module) -> list[StyleLayer]:
    return [module for module in model.modules() if isinstance(module, StyleLayer)]


def stored(model: nn.Module) -> list[torch.Tensor]:
    """The packed numbers of every adapted layer."""
    return [layer.get_base_layer().weight.data.clone() for layer in layers_of(model)]


def logits(model, ids, **options):
    with torch.no_grad():
        return model(ids, **options).logits


# Running and training


def test_each_layer_gives_its_base_plus_the_update_of_each_row(load, how):
    model = adapted(load())
    assert len(layers_of(model)) == 2  # q_proj and v_proj
    x = torch.randn(3, 5, 64)
    for layer in layers_of(model):
        assert layer.quantization_backend.backend_name == how[1]
        with model.styled(STYLES), torch.no_grad():
            output, base = layer(x), layer.get_base_layer()(x)
        for i, style in enumerate(STYLES):
            with model.styled(style):
                delta = layer.get_delta_weight("default")
            torch.testing.assert_close(output[i], base[i] + x[i] @ delta.T, rtol=1e-4, atol=1e-4)


def test_styles_one_a_row_equal_each_row_alone(load, ids):
    model = adapted(load(), target_modules="all-linear")
    together = logits(model, ids, styles=STYLES)
    for i, style in enumerate(STYLES):
        alone = logits(model, ids[i : i + 1], styles=style)[0]
        assert (together[i] - alone).norm() < 0.02 * alone.norm()  # 8-bit products round a last bit to another number
    assert torch.equal(logits(model, ids, styles=OFF), logits(model.unload(), ids))


def test_a_step_trains_the_adapter_alone_with_gradients_of_the_dequantised_base(load, how, ids):
    model = adapted(load(), target_modules="all-linear").train()
    plain = copy.deepcopy(model)
    plain.dequantize()  # which makes weights that want gradients
    for each in (model, plain):
        each(input_ids=ids, labels=ids, styles=STYLES).loss.backward()
    assert gradients(model).keys() == tensors(model).keys()
    exact = gradients(plain)
    for name, gradient in gradients(model).items():
        near = (gradient - exact[name]).norm() / exact[name].norm()
        assert near < (0.15 if how[1] == "bnb 8bit" else 1e-3)  # inputs of 8-bit products are rounded too
    before = stored(model)
    torch.optim.AdamW(tensors(model).values()).step()
    assert all(map(torch.equal, stored(model), before))


def test_a_saved_adapter_gives_equal_bits_on_a_base_quantised_anew(load, how, ids, tmp_path):
    model = adapted(load())
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(load(), tmp_path, is_trainable=True).eval()  # else 4 bits compute in bf16
    assert torch.equal(logits(loaded, ids, styles=STYLES), logits(model, ids, styles=STYLES))


# Merging


def merge(model: PeftModel, style, **options) -> None:
    with model.styled(style), pytest.warns(UserWarning, match=ROUNDS) as seen:
        model.merge_adapter(**options)
    assert len(seen) == 1  # once a model, not once a layer


def test_a_merge_warns_once_and_is_the_sum_rounded(load, how, ids):
    model = adapted(load(), target_modules="all-linear")
    with model.styled("kjv"):
        sums = [layer.get_base_weight() + layer.get_delta_weight("default") for layer in layers_of(model)]
    merge(model, "kjv", safe_merge=True)
    for layer, total in zip(layers_of(model), sums, strict=True):
        assert (layer.get_base_weight() - total).norm() / total.norm() < how[2]
    read = copy.deepcopy(model)
    read.dequantize()
    expected = logits(read, ids)  # of the rounded sums, in full precision
    assert (logits(model, ids) - expected).norm() < 0.1 * expected.norm()


def test_unmerging_brings_back_every_bit_also_after_a_forward_and_a_second_adapter(load, ids):
    model = adapted(load(), target_modules="all-linear")
    model.add_adapter("second", StyleAdapterConfig(styles=["old"], r=2, target_modules=["q_proj"]))
    randomise(model, seed=3)
    before, expected = stored(model), logits(model, ids, styles="kjv")
    for adapters in (["default"], ["default", "second"]):
        merge(model, "kjv", adapter_names=adapters)
        logits(model, ids)
        assert not any(map(torch.equal, stored(model), before))
        model.unmerge_adapter()
        assert all(map(torch.equal, stored(model), before))
        assert torch.equal(logits(model, ids, styles="kjv"), expected)
    model.train()(input_ids=ids, labels=ids, styles=STYLES).loss.backward()
    assert gradients(model).keys() == tensors(model).keys()


def test_merging_and_unloading_leaves_quantised_layers(load, ids):
    model = adapted(load())
    kind = type(model.base_model.model.model.layers[0].self_attn.q_proj.get_base_layer())
    with model.styled("kjv"), pytest.warns(UserWarning, match=ROUNDS):
        merged = model.merge_and_unload()
    assert type(merged.model.layers[0].self_attn.q_proj) is kind
    assert logits(merged, ids).isfinite().all()


def test_a_dequantised_base_merges_exactly_without_a_warning_and_can_be_saved(load, ids, tmp_path):
    model = adapted(load(), target_modules="all-linear")
    model.dequantize()  # in place, as the warning says
    expected = logits(model, ids, styles="kjv")
    with model.styled("kjv"):
        model.merge_adapter()
        torch.testing.assert_close(logits(model, ids), expected, rtol=1e-4, atol=1e-4)
        model.unmerge_adapter()
        merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, ids), expected, rtol=1e-4, atol=1e-4)
    assert type(merged.model.layers[0].self_attn.q_proj) is nn.Linear
    merged.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(loaded, ids), expected, rtol=1e-4, atol=1e-4)


def test_dequantising_a_merged_base_still_lets_it_unmerge(load, ids):
    model = adapted(load())
    merge(model, "kjv")
    rounded = [layer.get_base_weight() for layer in layers_of(model)]
    model.dequantize()
    model.unmerge_adapter()
    for layer, merged in zip(layers_of(model), rounded, strict=True):
        with model.styled("kjv"):
            expected = merged.float() - layer.get_delta_weight("default")
        torch.testing.assert_close(layer.get_base_weight(), expected, rtol=0, atol=1e-4)


def test_an_adapter_to_run_merges_before_the_first_forward_and_not_after_a_repacking(folder, ids, tmp_path):
    how = {"quantization_config": four_bits("nf4"), "dtype": torch.float32}
    load = partial(AutoModelForCausalLM.from_pretrained, folder, **how)
    adapted(load()).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(load(), tmp_path)
    merge(loaded, "kjv")
    assert loaded.base_model.model.model.layers[0].self_attn.q_proj.merged
    late = PeftModel.from_pretrained(load(), tmp_path)
    logits(late, ids, styles="kjv")
    layer = layers_of(late)[0].get_base_layer()
    if not layer.support_avx512bf16_for_cpu:
        pytest.skip("only processors with AVX512-BF16 repack")
    with pytest.raises(
        ValueError, match=r"4-bit base weight must not be repacked, .* or export the style with export_"
    ):
        late.merge_adapter()
    assert not any(layer.merged for layer in layers_of(late))
    export_lora(late, tmp_path / "lora", style="kjv")  # the way that the message names
    lora = PeftModel.from_pretrained(llama(**SIZES), tmp_path / "lora")
    assert logits(lora, ids).isfinite().all()


def test_a_quantisation_that_cannot_be_written_is_refused_before_the_first_layer(monkeypatch):
    model = style_model(Around(nn.Linear(5, 6)))
    monkeypatch.setattr(tables, "resolve_quantization_backend", lambda *_, **__: ForwardOnlyQuantizationBackend("gptq"))
    with pytest.raises(
        ValueError, match="base weight must not be quantised by gptq, which cannot be written; load the"
    ):
        model.merge_adapter()
    assert model(torch.randn(2, 5), styles=["kjv", "modern"]).shape == (2, 6)


def test_a_plain_base_merges_without_a_warning():
    model = get_peft_model(Around(nn.Linear(5, 6)), StyleAdapterConfig(target_modules=["layer"]))
    model.merge_adapter()
    assert layers_of(model)[0].merged
