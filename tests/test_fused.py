"""The update and its base in one node: the same as the parts apart, in values, gradients and what it touches."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from peft import LoraConfig, get_peft_model
from test_layers import make_layer, run
from timings import kept_bytes
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from style_adapter import StyleAdapterConfig
from style_adapter.functional import gated_linear, gated_update
from style_adapter.layers.linear import StyleLinear, is_plain

SHAPES = [(4, 5), (4, 3, 5), (4, 2, 3, 5)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_gated_linear_is_the_base_plus_the_update_and_its_gradients_are_finite_differences(shape, rows, biased):
    weight, bias = normal(7, 5), normal(7, seed=1) if biased else None
    values = normal(*shape, seed=2), normal(3, 5, seed=3), normal(7, 3, seed=4), normal(rows, 3, seed=5)
    values = tuple(value.requires_grad_() for value in values)

    def output(x: Tensor, a: Tensor, b: Tensor, gate: Tensor) -> Tensor:
        return gated_linear(x, weight, bias, a, b, gate)

    x, *rest = values
    torch.testing.assert_close(output(*values), F.linear(x, weight, bias) + gated_update(x, *rest), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(output, values)
    assert torch.autograd.gradgradcheck(output, values)


def test_without_gradients_it_is_the_same_and_leaves_its_input_alone():
    x, weight, a, b, gate = normal(4, 3, 5), normal(7, 5, seed=1), normal(2, 5, seed=2), normal(7, 2), normal(4, 2)
    before = x.clone()
    found = gated_linear(x, weight, None, a, b, gate)
    torch.testing.assert_close(found, F.linear(x, weight) + gated_update(x, a, b, gate), rtol=0, atol=1e-12)
    assert torch.equal(x, before)


def frozen_layer(*, hooked: bool = False, **options: object) -> StyleLinear:
    """A layer on a frozen base; a hook on the base sends it the plain way."""
    torch.manual_seed(0)
    layer = make_layer(nn.Linear(5, 7).requires_grad_(False), style_dim=0, noise_dim=0, **options)
    if hooked:
        layer.base_layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["fp32", "autocast"])
@pytest.mark.parametrize("spec", ["kjv", ["kjv", "modern", "modern", "kjv"]], ids=str)
def test_a_layer_on_a_plain_base_equals_its_parts_apart(precision, spec):
    found = []
    for hooked in (False, True):
        layer = frozen_layer(hooked=hooked)
        assert is_plain(layer.base_layer) is not hooked
        x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
            y = run(layer, x, spec)
        y.float().square().sum().backward()
        gradients = [parameter.grad for parameter in layer.parameters() if parameter.requires_grad]
        assert all(gradient is not None for gradient in gradients)
        assert y.dtype == (precision or torch.float32)
        found.append([y.float(), x.grad, *gradients])
    room = {"rtol": 0.05, "atol": 0.15} if precision else {"rtol": 1e-5, "atol": 1e-5}
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **room)


def test_a_hook_on_the_base_still_sees_every_call():
    layer, seen = frozen_layer(), []
    layer.base_layer.register_forward_hook(lambda *_: seen.append(1))
    run(layer, torch.randn(4, 5), "kjv")
    assert seen == [1]


def test_a_base_that_trains_gets_its_gradient():
    layer = frozen_layer()
    layer.base_layer.weight.requires_grad_()
    run(layer, torch.randn(4, 5), "kjv").sum().backward()
    assert layer.base_layer.weight.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(5,), (0, 5), (0, 3, 5)], ids=str)
def test_a_vector_and_an_empty_batch_still_run(shape):
    assert run(frozen_layer(), torch.randn(*shape), "kjv").shape == (*shape[:-1], 7)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own
def test_forward_derivatives_take_the_plain_way():
    layer, x = frozen_layer(), torch.randn(4, 5)
    value, along = torch.func.jvp(lambda x: run(layer, x, "kjv"), (x,), (x,))
    bias = layer.base_layer.bias
    torch.testing.assert_close(along, value - bias, rtol=1e-4, atol=1e-5)  # affine: the derivative along x is h - bias


def test_dropout_falls_on_the_update_alone():
    layer = frozen_layer(dropout=0.5).train()
    x = torch.ones(4, 5)
    with torch.no_grad():
        layer.base_layer.weight.zero_()
        one, other = run(layer, x, "kjv"), run(layer, x, "kjv")
    assert not torch.equal(one, other)
    assert torch.equal(layer.base_layer(x), layer.base_layer.bias.expand(4, 7))


def kept(model: nn.Module, **styles: object) -> int:
    """What one forward pass keeps for backward."""
    embeddings = torch.randn(4, 64, 64, requires_grad=True)

    def loss() -> Tensor:
        return model(inputs_embeds=embeddings, use_cache=False, **styles).logits.sum()

    return kept_bytes(model, loss)


def test_a_training_step_keeps_what_loras_keeps_and_the_gates():
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 32}
    base = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, **sizes)).requires_grad_(False)
    options = {"r": 8, "target_modules": "all-linear"}
    lora = get_peft_model(copy.deepcopy(base), LoraConfig(**options))
    ours = get_peft_model(copy.deepcopy(base), StyleAdapterConfig(styles=["a", "b"], **options))
    assert kept(ours, styles=["a", "b", "a", "b"]) <= 1.001 * kept(lora)
