"""What every kind of adapted layer promises, proven on each: PEFT's LoRA, closed forms and finite differences judge."""

import pytest
import torch
from conftest import STYLES, gradients, randomise
from kind_fixtures import ALPHA, KINDS, NAMES, R, style_model, tensors, twin
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from style_adapter import OFF, Style, StyleAdapterConfig, StyleAdapterModel
from style_adapter.layers import StyleLayer

EXACT = {"rtol": 0, "atol": 1e-10}
ROWS = ["kjv", {"modern": 0.5, "pirate": -0.25}, "modern"]


@pytest.fixture(params=NAMES)
def kind(request):
    """One kind of base layer."""
    return KINDS[request.param]


def lora_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """LoRA's factors by the names that ours have, in our shapes."""
    found = {}
    for name, parameter in model.named_parameters():
        for theirs, ours in (("lora_A", "A"), ("lora_B", "B"), ("lora_embedding_A", "A"), ("lora_embedding_B", "B")):
            if f".{theirs}." in name:
                short = name.replace(f".{theirs}.", f".style_adapter_{ours}.")
                found[short if short.endswith(".weight") else f"{short}.weight"] = parameter
    return found


def lora_model(kind, **options) -> PeftModel:
    config = LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["layer"], **options)
    return get_peft_model(kind.model(), config).eval()


def adapted_layers(model: nn.Module) -> list[StyleLayer]:
    return [module for module in model.modules() if isinstance(module, StyleLayer)]


# Against LoRA


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.lora])
def test_gate_one_equals_peft_lora_in_output_and_gradients(name):
    kind, attends = KINDS[name], "attention" in name
    ours, lora = style_model(kind.model(), styles=["one"]), lora_model(kind)
    factors = lora_tensors(lora)
    for key, parameter in tensors(ours).items():
        parameter.data = torch.ones_like(parameter) if "gate" in key else factors[key].data.normal_().clone()
        if "out_proj.style_adapter_B" in key:
            factors[key].data /= 2  # PEFT 0.21 merges it twice in each forward
    assert factors.keys() == {key for key in tensors(ours) if "gate" not in key}
    inputs = kind.rows(3)
    output, expected = ours(*inputs), lora(*inputs)
    torch.testing.assert_close(output, expected, **EXACT)
    if attends:  # LoRA merges into a weight there, which has no gradient to hand back to A and B
        return
    for result in (output, expected):
        result.square().sum().backward()
    for key, parameter in factors.items():
        torch.testing.assert_close(gradients(ours)[key], parameter.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.lora and "attention" not in name])
def test_equal_seeds_give_loras_own_start(name):
    kind = KINDS[name]
    plain, drawn = kind.model(torch.float32), []
    for config in (
        StyleAdapterConfig(r=R, alpha=ALPHA, target_modules=["layer"]),
        LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["layer"]),
    ):
        torch.manual_seed(5)
        drawn.append(get_peft_model(twin(plain), config))
    ours, lora = tensors(drawn[0]), lora_tensors(drawn[1])
    first = "layer.style_adapter_A.default.weight"
    if name != "embedding":  # LoRA draws tables that it then throws away
        assert torch.equal(ours[f"base_model.model.{first}"], lora[f"base_model.model.{first}"])
    for key, parameter in lora.items():
        assert (parameter.count_nonzero() == 0) == (ours[key].count_nonzero() == 0)


# The update


def test_each_row_equals_the_base_with_the_delta_weight_of_its_style(kind):
    model, inputs = style_model(kind.model()), kind.rows(3)
    output = model(*inputs, styles=ROWS)
    for i, style in enumerate(ROWS):
        alone = twin(model)
        with alone.styled(style):
            plain = alone.merge_and_unload()
        row = kind.row(inputs, i)
        torch.testing.assert_close(output.narrow(kind.rows_at, i, 1), plain(*row), **EXACT)
        assert not torch.allclose(plain(*row), kind.model()(*row))


def test_merged_weight_is_the_base_plus_s_b_diag_g_a(kind):
    model = style_model(kind.model())
    layer = model.base_model.model.layer
    a, b, gates = (layer.get_parameter(f"style_adapter_{n}.default.weight").detach() for n in ("A", "B", "gate"))
    weight, groups = layer.get_base_weight().clone(), getattr(layer.get_base_layer(), "groups", 1)
    a, b = a.flatten(1), b.flatten(1)
    if groups > 1:  # each group has its own part of the rank
        parts = zip(*(factor.chunk(groups) for factor in (b, gates[1], a)), strict=True)
        delta = torch.cat([x @ torch.diag(g) @ y for x, g, y in parts])
    else:
        delta = b @ torch.diag(gates[1]) @ a
    with model.styled("kjv"):
        model.merge_adapter()
    expected = ALPHA / R * delta
    change = layer.get_base_weight() - weight
    flat = change.T if change.shape == expected.T.shape != expected.shape else change.flatten(1)
    torch.testing.assert_close(flat, expected, **EXACT)


def test_styles_one_a_row_equal_each_row_alone(kind):
    model, inputs = style_model(kind.model()), kind.rows(3)
    output = model(*inputs, styles=ROWS)
    for i, style in enumerate(ROWS):
        alone = model(*kind.row(inputs, i), styles=style)
        torch.testing.assert_close(output.narrow(kind.rows_at, i, 1), alone, **EXACT)


@pytest.mark.parametrize("count", [2, 4])
def test_a_wrong_number_of_styles_raises(kind, count):
    model = style_model(kind.model())
    with pytest.raises(ValueError, match=f"{count} styles for a batch of 3 rows; give one style for the batch or"):
        model(*kind.rows(3), styles=["kjv"] * count)


def test_noise_and_features_vary_each_row_as_that_row_alone(kind):
    model, inputs = style_model(kind.model(), style_dim=2, noise_dim=3), kind.rows(3)
    noise, features = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 2)
    styles = [Style({"kjv": 1.0}, f) for f in features]
    output = model(*inputs, styles=styles, style_noise=noise)
    assert not torch.allclose(output, model(*inputs, styles="kjv"))
    for i in range(3):
        alone = model(*kind.row(inputs, i), styles=styles[i], style_noise=noise[i : i + 1])
        torch.testing.assert_close(output.narrow(kind.rows_at, i, 1), alone, **EXACT)
    varied = model(*inputs, styles="kjv", style_noise=noise)  # one style, a noise for each row
    alone = model(*kind.row(inputs, 2), styles="kjv", style_noise=noise[2:])
    torch.testing.assert_close(varied.narrow(kind.rows_at, 2, 1), alone, **EXACT)


def test_off_and_a_disabled_adapter_are_the_base_bitwise(kind):
    plain, inputs = kind.model(), kind.rows(3)
    model = style_model(twin(plain))
    assert torch.equal(model(*inputs, styles=OFF), plain(*inputs))
    with model.disable_adapter():
        assert torch.equal(model(*inputs, styles="kjv"), plain(*inputs))
    assert not torch.allclose(model(*inputs, styles="kjv"), plain(*inputs))
    torch.testing.assert_close(model(*inputs, styles=0 * model.styles["kjv"]), plain(*inputs), **EXACT)


def test_training_starts_at_the_base_bitwise_and_moves_away(kind):
    plain, inputs = kind.model(), kind.rows(3)
    model = style_model(twin(plain), random=False).train()
    start = model(*inputs, styles=STYLES)
    torch.testing.assert_close(start, plain(*inputs), rtol=0, atol=1e-14)
    optimizer = torch.optim.SGD(tensors(model).values(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(*inputs, styles=STYLES).square().sum().backward()
        assert gradients(model).keys() == tensors(model).keys()
        optimizer.step()
    assert all(grad.abs().max() > 0 for grad in gradients(model).values())


def test_every_gradient_equals_finite_differences(kind):
    model, inputs = style_model(kind.model(), style_dim=2, noise_dim=2, r=4), kind.rows(2)
    parameters, noise = tensors(model), torch.randn(2, 2, dtype=torch.float64)
    styles = [Style({"kjv": 1.0, "modern": 0.5}, torch.tensor([0.5, -1.0])), "pirate"]
    weights = torch.randn_like(model(*inputs))

    def objective(*values: Tensor) -> Tensor:
        given = {"styles": styles, "style_noise": noise}
        output = torch.func.functional_call(model, dict(zip(parameters, values, strict=True)), tuple(inputs), given)
        return (output * weights).sum().tanh()

    values = tuple(p.detach().clone().requires_grad_() for p in parameters.values())
    assert torch.autograd.gradcheck(objective, values, fast_mode=True)


# Merge


def test_merged_equals_unmerged_and_unmerge_restores(kind):
    plain, inputs = kind.model(), kind.rows(3)
    model = style_model(twin(plain))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    adapted = model(*inputs, styles="kjv")
    for safe in (False, True):
        with model.styled("kjv"):
            model.merge_adapter(safe_merge=safe)
        torch.testing.assert_close(model(*inputs), adapted, **EXACT)
        with torch.no_grad():
            torch.testing.assert_close(model(*inputs), adapted, **EXACT)
        model.unmerge_adapter()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, before[name], rtol=0, atol=1e-12)
        torch.testing.assert_close(model(*inputs, styles="kjv"), adapted, **EXACT)


def test_merging_twice_warns_once_and_changes_nothing(kind):
    model = style_model(kind.model())
    model.merge_adapter()
    merged = model(*kind.rows(2))
    with pytest.warns(UserWarning, match="All adapters are already merged") as seen:
        model.merge_adapter()
    assert len(seen) == 1
    assert torch.equal(model(*kind.rows(2)), merged)


def test_safe_merge_refuses_a_broken_adapter_and_keeps_the_weight(kind):
    model = style_model(kind.model())
    layer = model.base_model.model.layer
    weight = layer.get_base_weight().clone()
    layer.get_parameter("style_adapter_B.default.weight").data[0] = float("inf")
    with pytest.raises(ValueError, match="merged weights must be finite"):
        model.merge_adapter(safe_merge=True)
    assert torch.equal(layer.get_base_weight(), weight)


def test_disabling_a_merged_adapter_takes_it_out(kind):
    plain, inputs = kind.model(), kind.rows(2)
    model = style_model(twin(plain))
    model.merge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(model(*inputs), plain(*inputs), **EXACT)


@pytest.mark.parametrize("merge", [True, False])
def test_unloading_leaves_a_plain_module_of_the_same_names(kind, merge):
    plain, inputs = kind.model(), kind.rows(2)
    model = style_model(twin(plain))
    adapted = model(*inputs)
    unloaded = model.merge_and_unload(safe_merge=True) if merge else model.unload()
    assert type(unloaded.layer) is type(plain.layer)
    assert unloaded.state_dict().keys() == plain.state_dict().keys()
    assert not adapted_layers(unloaded)
    assert [type(m) for m in unloaded.modules()] == [type(m) for m in plain.modules()]
    torch.testing.assert_close(unloaded(*inputs), adapted if merge else plain(*inputs), **EXACT)
    again = style_model(unloaded)  # a second adapter fits on what is left
    assert again(*inputs, styles="kjv").shape == adapted.shape


# Files and further adapters


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_loaded_adapter_gives_equal_bits(kind, low_cpu_mem_usage, tmp_path):
    model, inputs = style_model(kind.model(), style_dim=2, noise_dim=3), kind.rows(3)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(kind.model(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert isinstance(loaded.base_model, StyleAdapterModel)
    model.requires_grad_(False)  # torch picks its kernels by this
    expected = model(*inputs, styles=STYLES, style_noise=torch.ones(1, 3))
    assert torch.equal(loaded(*inputs, styles=STYLES, style_noise=torch.ones(1, 3)), expected)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_two_adapters_each_speak_add_up_and_are_deleted(kind):
    inputs = kind.rows(2)
    model = style_model(kind.model())
    model.add_adapter("second", StyleAdapterConfig(styles=["old", "new"], r=8, target_modules=["layer"]))
    randomise(model, seed=2)
    first = model(*inputs, styles="kjv")
    model.set_adapter("second")
    second = model(*inputs, styles="new")
    assert not torch.allclose(first, second)
    model.base_model.set_adapter(["default", "second"])
    chosen, merged = {"default": "kjv", "second": "new"}, twin(model)
    both = model(*inputs, styles=chosen)
    if len(adapted_layers(model)) == 1:
        torch.testing.assert_close(both, first + second - model(*inputs, styles=OFF), **EXACT)
    with merged.styled(chosen):
        merged.merge_adapter()
    torch.testing.assert_close(merged(*inputs), both, **EXACT)
    merged.unmerge_adapter()
    with merged.styled(chosen):
        torch.testing.assert_close(merged.merge_and_unload()(*inputs), both, **EXACT)
    model.base_model.set_adapter("default")
    model.delete_adapter("second")
    assert not tensors(model, "second")
    assert torch.equal(model(*inputs, styles="kjv"), first)


def test_a_mixed_batch_gives_each_row_its_adapter_or_none(kind):
    inputs = kind.rows(3)
    model = style_model(kind.model())
    model.add_adapter("second", StyleAdapterConfig(styles=["old", "new"], r=4, target_modules=["layer"]))
    randomise(model, seed=2)
    output = model(*inputs, adapter_names=["second", "__base__", "default"])
    for i, adapter in enumerate(["second", None, "default"]):
        model.set_adapter(adapter or "default")
        alone = model(*kind.row(inputs, i), **({} if adapter else {"styles": OFF}))
        torch.testing.assert_close(output.narrow(kind.rows_at, i, 1), alone, **EXACT)


# Dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_fp32_adapter_on_a_smaller_base_is_near_and_keeps_its_dtype(kind, dtype):
    exact = style_model(kind.model(torch.float32))(*kind.rows(3, torch.float32), styles=STYLES)
    model = style_model(kind.model(dtype))
    assert {p.dtype for p in tensors(model).values()} == {torch.float32}
    output = model(*kind.rows(3, dtype), styles=STYLES)
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.1)
    output.float().square().sum().backward()
    assert gradients(model).keys() == tensors(model).keys()
    with model.styled("kjv"):
        adapted = model(*kind.rows(3, dtype))
        model.merge_adapter()
    torch.testing.assert_close(model(*kind.rows(3, dtype)), adapted, rtol=0.05, atol=0.1)


def test_autocast_computes_near_the_exact_output_and_trains(kind):
    model, inputs = style_model(kind.model(torch.float32)), kind.rows(3, torch.float32)
    exact = model(*inputs, styles=STYLES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*inputs, styles=STYLES)
        expected = kind.model(torch.float32)(*inputs).dtype
    assert output.dtype == expected
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.1)
    output.float().square().sum().backward()
    assert gradients(model).keys() == tensors(model).keys()
