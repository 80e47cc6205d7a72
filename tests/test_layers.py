"""One adapted layer against closed forms: gate, update, merge, dtypes, kinds of base layers, 4 bits."""

import math

import pytest
import torch
from conftest import randomise
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from style_adapter import OFF, Style, StyleAdapterConfig, StyleBank
from style_adapter.layers import StyleLinear, layer_class
from style_adapter.style import StyleContext

NAMES, D_IN, D_OUT, R = ("modern", "kjv", "pirate"), 5, 6, 3
CPU = torch.device("cpu")


def kind(base: nn.Module) -> str:
    return type(base).__name__


def make_layer(base: nn.Module | None = None, *, r: int = R, alpha: float = 6.0, **options) -> StyleLinear:
    """A layer with random tensors in fp64, with features and noise."""
    options = {"styles": list(NAMES), "style_dim": 2, "noise_dim": 4, "init_weights": False} | options
    config, context = StyleAdapterConfig(**options), StyleContext()
    widths = {"style_dim": config.style_dim, "noise_dim": config.noise_dim, "noise_type": config.noise_type}
    context.add_bank("default", StyleBank(tuple(config.styles), **widths))
    base = nn.Linear(D_IN, D_OUT).double() if base is None else base
    return StyleLinear(base, "default", config, context=context, key="layer", r=r, alpha=alpha)


@pytest.fixture
def layer() -> StyleLinear:
    return make_layer()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 7, D_IN, dtype=torch.float64)


def tensor(layer: StyleLinear, name: str) -> Tensor:
    """One adapter tensor by its short name."""
    return layer.get_parameter(f"style_adapter_{name}.default.weight").detach()


def run(layer: StyleLinear, x: Tensor, spec, noise: Tensor | None = None) -> Tensor:
    """The layer's output in a style."""
    code = None if spec is OFF else layer.style_context.banks["default"].code(spec, noise=noise)
    with layer.style_context.hold({"default": code}):
        return layer(x)


# The gate


def test_gate_equals_names_plus_features_plus_noise(layer):
    bank, f, z = layer.style_context.banks["default"], torch.tensor([0.5, -1.0]), torch.randn(2, 4)
    rows = [Style({"kjv": 0.75, "modern": -0.25}), Style({"pirate": 2.0}, f)]
    modern, kjv, pirate = tensor(layer, "gate")
    named = torch.stack([0.75 * kjv - 0.25 * modern, 2 * pirate])
    features = torch.stack([torch.zeros(R), f @ tensor(layer, "feature").float()])
    expected = named + features + z.double() @ tensor(layer, "noise")
    torch.testing.assert_close(layer.gate("default", bank.code(rows, noise=z)), expected, check_dtype=False)
    without = layer.gate("default", bank.code(rows))
    assert not torch.allclose(without, expected)


def test_gate_without_feature_and_noise_tables_is_the_named_part_alone():
    layer = make_layer(style_dim=0, noise_dim=0)
    assert torch.equal(layer.gate("default", layer.style_context.banks["default"].code(1))[0], tensor(layer, "gate")[1])
    assert {name.split(".")[0] for name, _ in layer.named_parameters() if "style_adapter" in name} == {
        "style_adapter_A",
        "style_adapter_B",
        "style_adapter_gate",
    }


def test_output_equals_base_plus_scaled_delta_of_each_row(layer, x):
    specs = ["kjv", {"modern": 0.5, "pirate": 0.5}, OFF, 2]
    outputs, gates = run(layer, x, specs), layer.gate("default", layer.style_context.banks["default"].code(specs))
    for row, output, gate in zip(x, outputs, gates, strict=True):
        delta = (6.0 / R) * tensor(layer, "B") @ torch.diag(gate) @ tensor(layer, "A")
        torch.testing.assert_close(output, layer.base_layer(row) + row @ delta.T, rtol=0, atol=1e-10)


def test_every_adapter_gradient_equals_finite_differences(layer, x):
    z, style = torch.randn(1, 4, dtype=torch.float64), Style({"kjv": 1.0, "modern": 0.5}, torch.tensor([0.5, -1.0]))
    parameters = {n: p for n, p in layer.named_parameters() if "style_adapter" in n}
    code = layer.style_context.banks["default"].code(style, noise=z)

    def output(*values: Tensor) -> Tensor:
        with layer.style_context.hold({"default": code}):
            return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), x[:1])

    assert len(parameters) == 5
    assert torch.autograd.gradcheck(output, tuple(p.detach().requires_grad_() for p in parameters.values()))


def test_features_get_the_gradient_of_finite_differences(layer, x):
    bank = layer.style_context.banks["default"]
    f = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: run(layer, x[:1], Style({"kjv": 1.0}, f)), (f,))
    assert bank.code(Style(features=f)).features.dtype == torch.float64


def test_noise_of_one_row_each_varies_one_style(layer, x):
    z = torch.randn(4, 4, dtype=torch.float64)
    together = run(layer, x, "kjv", z)
    alone = torch.cat([run(layer, row[None], "kjv", noise[None]) for row, noise in zip(x, z, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert not torch.allclose(together, run(layer, x, "kjv"))


@pytest.mark.parametrize("shape", [(D_IN,), (4, D_IN), (4, 2, 3, D_IN)], ids=str)
def test_inputs_of_any_dimensions_take_one_style(layer, shape):
    x = torch.randn(shape, dtype=torch.float64)
    by_hand = layer.base_layer(x) + x @ layer.get_delta_weight("default").T
    torch.testing.assert_close(layer(x), by_hand, rtol=0, atol=1e-10)


def test_a_single_vector_takes_no_list_of_styles(layer):
    with pytest.raises(ValueError, match="5 styles for a batch of 1 rows"):
        run(layer, torch.randn(D_IN, dtype=torch.float64), ["kjv"] * D_IN)


@pytest.mark.parametrize("styles", [2, 3, 5, 8])
def test_as_many_styles_as_rows_or_an_error(layer, x, styles):
    with pytest.raises(
        ValueError, match=f"{styles} styles for a batch of 4 rows; give one style for the batch or exactly 4, one a row"
    ):
        run(layer, x, ["kjv"] * styles)
    assert run(layer, x, ["kjv"] * 4).shape == (4, 7, D_OUT)


# Start


@pytest.mark.parametrize(("use_rslora", "scaling"), [(False, 6 / R), (True, 6 / math.sqrt(R))])
def test_scaling_is_loras(use_rslora, scaling):
    assert make_layer(use_rslora=use_rslora).scaling["default"] == pytest.approx(scaling)


def test_init_starts_at_the_backbone_with_gates_one_and_lora_a():
    base = nn.Linear(D_IN, D_OUT)
    torch.manual_seed(0)
    ours = make_layer(base, init_weights=True)
    torch.manual_seed(0)
    lora = LoraLinear(base, "default", config=_lora_config(), r=R, lora_alpha=6)
    assert torch.equal(tensor(ours, "A"), lora.lora_A["default"].weight)
    assert tensor(ours, "B").count_nonzero() == 0
    assert torch.equal(tensor(ours, "gate"), torch.ones(3, R))
    assert tensor(ours, "feature").count_nonzero() == tensor(ours, "noise").count_nonzero() == 0


def _lora_config():
    from peft import LoraConfig

    return LoraConfig(r=R, lora_alpha=6)


def test_init_weights_false_draws_every_tensor():
    layer = make_layer(init_weights=False)
    for name in ("A", "B", "gate", "feature", "noise"):
        assert tensor(layer, name).count_nonzero() == tensor(layer, name).numel()


@pytest.mark.parametrize("init_weights", [True, False])
def test_equal_seeds_give_equal_bits(init_weights):
    def drawn(seed: int) -> list[Tensor]:
        base = nn.Linear(D_IN, D_OUT)
        torch.manual_seed(seed)
        layer = make_layer(base, init_weights=init_weights)
        return [tensor(layer, name) for name in ("A", "B", "gate", "feature", "noise")]

    assert all(map(torch.equal, drawn(3), drawn(3)))
    assert not all(map(torch.equal, drawn(3), drawn(4)))


def test_replacing_an_adapter_leaves_nothing_of_the_old_one(layer, x):
    config = StyleAdapterConfig(styles=["a"], init_weights=False)
    layer.update_layer("default", config, r=2, alpha=2.0)
    layer.style_context.add_bank("default", StyleBank(("a",)))
    assert tensor(layer, "A").shape == (2, D_IN)
    assert "default" not in layer.style_adapter_feature
    assert "default" not in layer.style_adapter_noise
    assert run(layer, x, "a").shape == (4, 7, D_OUT)


# Merge


@pytest.mark.parametrize("base", [nn.Linear(D_IN, D_OUT), Conv1D(D_OUT, D_IN)], ids=["Linear", "Conv1D"])
def test_merged_equals_unmerged_and_unmerge_restores(base, x):
    layer = make_layer(base.double())
    before, weight = run(layer, x, "kjv"), base.weight.detach().clone()
    with layer.style_context.hold({"default": layer.style_context.banks["default"].code("kjv")}):
        layer.merge(safe_merge=True)
        assert layer.merged
        torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-10)
    torch.testing.assert_close(base(x), before, rtol=0, atol=1e-10)
    assert base.weight.is_contiguous()
    layer.unmerge()
    assert not layer.merged
    assert not layer.merged_gates
    torch.testing.assert_close(base.weight, weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(run(layer, x, "kjv"), before, rtol=0, atol=1e-10)


def test_unmerge_subtracts_the_gate_of_the_merge_whatever_is_in_force_then(layer):
    weight, bank = layer.base_layer.weight.detach().clone(), layer.style_context.banks["default"]
    with layer.style_context.hold({"default": bank.code("kjv")}):
        layer.merge()
    merged = layer.base_layer.weight.detach().clone()
    with layer.style_context.hold({"default": bank.code("pirate")}):
        assert not torch.allclose(merged, weight + layer.get_delta_weight("default"))  # pirate is another style
        layer.unmerge()
    torch.testing.assert_close(layer.base_layer.weight, weight, rtol=0, atol=1e-12)


def test_delta_weight_of_off_is_zero_and_of_the_default_is_not(layer):
    assert layer.get_delta_weight("default").abs().min() > 0
    with layer.style_context.hold({"default": None}):
        assert layer.get_delta_weight("default").count_nonzero() == 0


def test_merging_a_batch_of_different_styles_raises_and_changes_nothing(layer):
    weight, bank = layer.base_layer.weight.detach().clone(), layer.style_context.banks["default"]
    with layer.style_context.hold({"default": bank.code(["kjv", "pirate"])}):
        with pytest.raises(ValueError, match="2 styles must be 1 to merge or export; choose one style or mixture"):
            layer.merge()
        with pytest.raises(ValueError, match="2 styles must be 1"):
            layer.get_delta_weight("default")
    assert torch.equal(layer.base_layer.weight, weight)
    assert not layer.merged


def test_safe_merge_refuses_a_broken_adapter_and_keeps_the_weight(layer):
    weight = layer.base_layer.weight.detach().clone()
    with torch.no_grad():
        layer.get_parameter("style_adapter_B.default.weight")[0, 0] = float("nan")
    with pytest.raises(ValueError, match="adapter 'default': merged weights must be finite; the adapter seems broken"):
        layer.merge(safe_merge=True)
    assert torch.equal(layer.base_layer.weight, weight)


def test_merging_twice_and_unmerging_twice_warn_and_change_nothing(layer):
    layer.merge()
    merged = layer.base_layer.weight.detach().clone()
    with pytest.warns(UserWarning, match="All adapters are already merged"):
        layer.merge()
    assert torch.equal(layer.base_layer.weight, merged)
    layer.unmerge()
    with pytest.warns(UserWarning, match="Already unmerged. Nothing to do."):
        layer.unmerge()


# Dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_fp32_adapter_on_a_smaller_base_keeps_the_base_dtype(dtype):
    layer = make_layer(nn.Linear(D_IN, D_OUT).to(dtype))
    for name, parameter in layer.named_parameters():
        parameter.data = parameter.data.float() if "style_adapter" in name else parameter.data
    x = torch.randn(2, 3, D_IN).to(dtype)
    output, by_hand = run(layer, x, "kjv"), layer.base_layer(x).float()
    with layer.style_context.hold({"default": layer.style_context.banks["default"].code("kjv")}):
        by_hand = by_hand + x.float() @ layer.get_delta_weight("default").T
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), by_hand, rtol=0.02, atol=0.05)


def test_autocast_computes_the_update_in_its_dtype_and_stays_near():
    layer = make_layer(nn.Linear(D_IN, D_OUT))
    x = torch.randn(2, 3, D_IN)
    exact = run(layer, x, "kjv")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = run(layer, x, "kjv")
    assert cast.dtype == torch.bfloat16
    torch.testing.assert_close(cast.float(), exact, rtol=0.05, atol=0.1)


# Kinds of base layers


@pytest.mark.parametrize("base", [nn.ConvTranspose2d(1, 1, 1), nn.LayerNorm(2), nn.ModuleList()], ids=kind)
def test_a_base_layer_of_an_unknown_kind_raises_and_lists_the_known(base):
    text = f"target_modules matched a.b, a {kind(base)}, which must be one of Linear, Conv1D, Embedding, Conv1d, .*; le"
    with pytest.raises(ValueError, match=text):
        layer_class(base, "a.b")


def test_stacked_experts_raise_with_the_remedy():
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_up_proj = nn.Parameter(torch.zeros(4, 2, 2))

    with pytest.raises(ValueError, match=r"experts are stacked .* set target_parameters="):
        layer_class(Experts(), "model.layers.0.mlp.experts")


def test_the_projection_inside_torchs_attention_raises_with_the_remedy():
    attention = nn.MultiheadAttention(8, 2)
    with pytest.raises(ValueError, match=r"must not be adapted alone: .* name the attention module itself, or exclude"):
        layer_class(attention.out_proj, "attention.out_proj")
    called = []
    attention.out_proj.register_forward_hook(lambda *_: called.append(1))
    attention(*torch.randn(3, 2, 1, 8))
    assert not called


def test_repr_names_the_method(layer):
    assert repr(layer).startswith("style_adapter.StyleLinear(")


# 4 bits


@pytest.fixture
def bnb():
    """bitsandbytes, whose 4-bit layers need widths of 64."""
    return pytest.importorskip("bitsandbytes")


def four_bit(bnb) -> StyleLinear:
    """A layer on a 4-bit base, with a random fp32 adapter of one style."""
    base = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32).to("cpu")
    return randomise(make_layer(base, style_dim=0, noise_dim=0))


def plain_weight(bnb, layer: StyleLinear) -> Tensor:
    """The base weight in full."""
    weight = layer.base_layer.weight
    return bnb.functional.dequantize_4bit(weight.data, weight.quant_state).float()


def test_four_bit_base_gives_base_plus_update_and_gradient_to_the_adapter_alone(bnb):
    layer, x = four_bit(bnb), torch.randn(2, 3, 64)
    by_hand = x @ (plain_weight(bnb, layer) + layer.get_delta_weight("default")).T
    output = layer(x)
    torch.testing.assert_close(output, by_hand, rtol=1e-3, atol=1e-3)
    output.square().sum().backward()
    assert {name for name, p in layer.named_parameters() if p.grad is not None} == {
        f"style_adapter_{name}.default.weight" for name in ("A", "B", "gate")
    }


def test_merge_into_a_four_bit_base_is_near_the_sum_until_the_weight_is_repacked(bnb):
    layer = four_bit(bnb)
    total = plain_weight(bnb, layer) + layer.get_delta_weight("default")
    layer.merge()
    error = (plain_weight(bnb, layer) - total).norm() / total.norm()
    assert error < 0.15  # 4 bits
    layer.unmerge()
    layer.base_layer.weight.quant_state.packing_format_for_cpu = True  # what the first forward in eval mode leaves
    with pytest.raises(ValueError, match=r"4-bit base weight must not be repacked, .* load the base unquantised"):
        layer.merge()
    assert not layer.merged


def test_bitsandbytes_marks_what_it_repacks(bnb):
    base = four_bit(bnb).base_layer.eval()
    if not base.support_avx512bf16_for_cpu:
        pytest.skip("only processors with AVX512-BF16 repack")
    with torch.no_grad():
        base(torch.randn(1, 64))
    assert base.weight.quant_state.packing_format_for_cpu
