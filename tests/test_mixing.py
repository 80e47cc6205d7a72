"""Mixtures of LoRAs, ours and those of PEFT's `add_weighted_adapter`, judged by the sum of their deltas by hand."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from conftest import gpt2, llama
from lora_fixtures import deltas, make_lora, weighted_sum
from peft import PeftModel
from torch import Tensor

from style_adapter import from_loras
from style_adapter.layers import StyleLayer

WEIGHTS = {"a": 0.7, "b": 0.3}
CASES = {
    "llama": (llama, {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path) -> tuple[PeftModel, PeftModel, dict[str, dict[str, Tensor]]]:
    """Two LoRAs of rank 4 in one PEFT model, the same two as styles, and the dW of each."""
    backbone, options = CASES[request.param]
    folders: dict[str, Path] = {name: tmp_path / name for name in WEIGHTS}
    for seed, folder in enumerate(folders.values()):
        make_lora(backbone(), folder, seed, r=4, lora_alpha=6, **options)
    loras = PeftModel.from_pretrained(backbone(), folders["a"], adapter_name="a")
    loras.load_adapter(folders["b"], adapter_name="b")
    return loras, from_loras(backbone(), folders), {name: deltas(loras, name) for name in WEIGHTS}


def error(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """||found - wanted|| / ||wanted||, Frobenius, over all modules."""
    assert found.keys() == wanted.keys()
    off = sum((found[name] - wanted[name]).square().sum() for name in wanted)
    return float((off / sum(delta.square().sum() for delta in wanted.values())).sqrt())


def of_style(model: PeftModel, style: Mapping[str, float]) -> dict[str, Tensor]:
    """dW of each module in `style`."""
    with torch.no_grad(), model.base_model.styled(style):
        layers = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if isinstance(m, StyleLayer)}
        return {name: layer.get_delta_weight("default") for name, layer in layers.items()}


def of_peft(loras: PeftModel, weights: Mapping[str, float], way: str) -> dict[str, Tensor]:
    """dW of each module in PEFT's mixture, a new adapter of the name `way`."""
    loras.add_weighted_adapter(list(weights), list(weights.values()), way, combination_type=way)
    return deltas(loras, way)


def test_our_mixture_has_no_cross_terms_and_pefts_linear_one_has(case):
    loras, ours, parts = case
    wanted = weighted_sum(parts, WEIGHTS)
    assert error(of_style(ours, WEIGHTS), wanted) < 1e-6
    linear = of_peft(loras, WEIGHTS, "linear")
    assert 0.8 < error(linear, wanted) < 1.2
    for name, delta in linear.items():  # all that is wrong with it is B_a A_b and B_b A_a
        layer = loras.get_submodule(f"base_model.model.{name}")
        a, b = ({k: getattr(layer, f"lora_{factor}")[k].weight.detach() for k in WEIGHTS} for factor in "AB")
        cross = (WEIGHTS["a"] * WEIGHTS["b"]) ** 0.5 * layer.scaling["a"] * (b["a"] @ a["b"] + b["b"] @ a["a"])
        cross = cross.T if layer.fan_in_fan_out else cross
        torch.testing.assert_close(delta - wanted[name], cross, atol=1e-5, rtol=1e-4)


def test_pefts_cat_is_exact_too_but_its_rank_grows_with_each_mixture(case):
    loras, ours, parts = case
    once = weighted_sum(parts, WEIGHTS)
    twice = weighted_sum({"once": once, "b": parts["b"]}, {"once": 0.5, "b": 0.5})
    assert error(of_peft(loras, WEIGHTS, "cat"), once) < 1e-6
    loras.add_weighted_adapter(["cat", "b"], [0.5, 0.5], "again", combination_type="cat")
    assert error(deltas(loras, "again"), twice) < 1e-6
    assert [loras.peft_config[name].r for name in ("a", "cat", "again")] == [4, 8, 12]
    bank = ours.base_model.styles
    style = 0.5 * (0.7 * bank["a"] + 0.3 * bank["b"]) + 0.5 * bank["b"]
    assert error(of_style(ours, style), twice) < 1e-6
    assert {m.r["default"] for m in ours.modules() if isinstance(m, StyleLayer)} == {8}


def test_negative_weights_and_strengths_above_one_are_exact(case):
    _, ours, parts = case
    weights = {"a": -1.5, "b": 2.0}
    assert error(of_style(ours, weights), weighted_sum(parts, weights)) < 1e-6


def test_pefts_svd_at_its_own_rank_loses_what_ours_keeps(case):
    loras, ours, parts = case
    wanted = weighted_sum(parts, WEIGHTS)
    assert error(of_peft(loras, WEIGHTS, "svd"), wanted) > 0.1
    assert error(of_style(ours, WEIGHTS), wanted) < 1e-6
