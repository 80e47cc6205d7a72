"""Where an adapter starts: at the base, with factors that `init_weights` draws or takes from the base weight."""

import pytest
import torch
from conftest import STYLES, adapted, gpt2, gradients, llama, token_ids
from kind_fixtures import ALPHA, KINDS, R, style_model, tensors
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from style_adapter import StyleAdapterConfig
from style_adapter.functional import orthogonal_factors, principal_factors
from style_adapter.layers import StyleLayer

MATRICES = ("linear", "conv1d of transformers", "attention batch first")


def factors(layer: StyleLayer, adapter: str = "default") -> tuple[Tensor, Tensor]:
    """s * A and B of one layer."""
    a, b = (layer.get_parameter(f"style_adapter_{name}.{adapter}.weight").detach() for name in "AB")
    return layer.scaling[adapter] * a, b


def layers_of(model: nn.Module) -> list[StyleLayer]:
    return [module for module in model.modules() if isinstance(module, StyleLayer)]


def as_matrix(layer: StyleLayer) -> Tensor:
    """The base weight [d_out, d_in]."""
    weight = layer.get_base_weight().double()
    return weight if weight.shape == (layer.out_features, layer.in_features) else weight.T


# Orthogonal


@pytest.mark.parametrize("r", [2, 4, 16])
def test_orthogonal_factors_have_no_zero_and_a_product_of_zero(r):
    a, b = orthogonal_factors(r, 7, 5)
    assert (a.shape, b.shape) == ((r, 7), (5, r))
    assert a.abs().min() > 0
    assert b.abs().min() > 0
    torch.testing.assert_close(b @ a, torch.zeros(5, 7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MATRICES)
def test_an_orthogonal_start_is_the_base_and_gives_every_factor_a_gradient_at_once(name):
    plain, inputs = KINDS[name].model(), KINDS[name].rows(3)
    model = style_model(KINDS[name].model(), random=False, init_weights="orthogonal", styles=list(STYLES))
    output = model.train()(*inputs, styles=STYLES)
    torch.testing.assert_close(output, plain(*inputs), rtol=0, atol=1e-6)
    output.square().sum().backward()
    for key, gradient in gradients(model).items():
        assert gradient.abs().max() > 0 or "gate" in key
    zero = style_model(KINDS[name].model(), random=False)  # the usual start gives A none
    zero.train()(*inputs, styles=STYLES).square().sum().backward()
    assert all(g.count_nonzero() == 0 for key, g in gradients(zero).items() if "style_adapter_A" in key)


@pytest.mark.parametrize("options", [{"r": 3}, {"rank_pattern": {"layer": 5}}], ids=str)
def test_an_odd_rank_has_no_orthogonal_start(options):
    r = options.get("r", 5)
    with pytest.raises(ValueError, match=f"r={r} must be even for init_weights='orthogonal'; choose an even rank"):
        style_model(KINDS["linear"].model(), init_weights="orthogonal", **options)


# Principal directions


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_a_pissa_start_is_the_base_bitwise_and_holds_its_best_approximation(name, use_rslora):
    plain, inputs = KINDS[name].model(), KINDS[name].rows(3)
    options = {"init_weights": "pissa", "use_rslora": use_rslora, "random": False}
    model = style_model(KINDS[name].model(), **options)
    output = model.train()(*inputs, styles=STYLES)
    torch.testing.assert_close(output, plain(*inputs), rtol=0, atol=1e-15)
    for layer in layers_of(model):
        u, s, vh = torch.linalg.svd(as_matrix(layer), full_matrices=False)
        best = u[:, :R] @ torch.diag(s[:R]) @ vh[:R]
        a, b = factors(layer)
        torch.testing.assert_close(b @ a, best, rtol=0, atol=1e-6)
        assert layer.get_parameter("style_adapter_gate.default.weight").count_nonzero() == 0
    output.square().sum().backward()
    assert all(g.abs().max() > 0 for key, g in gradients(model).items() if "gate" in key)


@pytest.mark.parametrize("name", MATRICES[:2])
def test_a_gate_of_minus_one_on_a_pissa_start_takes_the_principal_directions_away(name):
    model = style_model(KINDS[name].model(), random=False, init_weights="pissa")
    layer = layers_of(model)[0]
    layer.get_parameter("style_adapter_gate.default.weight").data.fill_(-1.0)
    rest = torch.linalg.svdvals(as_matrix(layer))[R:]
    model.merge_adapter()
    left = torch.linalg.svdvals(as_matrix(layer))
    torch.testing.assert_close(left[: len(rest)], rest, rtol=0, atol=1e-6)
    torch.testing.assert_close(left[len(rest) :], torch.zeros(R).double(), rtol=0, atol=1e-6)


def test_a_rank_beyond_the_weight_has_no_pissa_start():
    with pytest.raises(ValueError, match=r"r=6 must be <= 5, the smaller size .* lower rank .* with rank_pattern"):
        style_model(KINDS["linear"].model(), init_weights="pissa", r=6)
    with pytest.raises(ValueError, match="r=2 must be <= 1"):
        principal_factors(torch.ones(1, 4), 2)


@pytest.mark.parametrize("is_trainable", [False, True])
def test_loading_a_pissa_adapter_gives_equal_bits_and_decomposes_nothing_to_run(is_trainable, tmp_path, monkeypatch):
    model, ids = adapted(gpt2(), init_weights="pissa", target_modules=["c_attn"]), token_ids(3)
    model.save_pretrained(tmp_path)
    calls, svd = [], torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda *args, **kwargs: calls.append(1) or svd(*args, **kwargs))
    loaded = PeftModel.from_pretrained(gpt2(), tmp_path, is_trainable=is_trainable).eval()
    assert bool(calls) is is_trainable
    with torch.no_grad():
        assert torch.equal(loaded.requires_grad_(False)(ids).logits, model.requires_grad_(False)(ids).logits)


# What has no matrix


@pytest.mark.parametrize("how", ["orthogonal", "pissa"])
@pytest.mark.parametrize("name", ["conv1d", "conv2d grouped", "conv3d", "embedding"])
def test_layers_without_a_matrix_have_the_plain_starts_alone(how, name):
    kind = type(KINDS[name].make()).__name__
    with pytest.raises(
        ValueError, match=f"init_weights='{how}' must be True or False for {kind}; leave it out of target_modules, or"
    ):
        style_model(KINDS[name].model(), init_weights=how)
    both = nn.Sequential(nn.Linear(4, 4), KINDS[name].make())
    config = StyleAdapterConfig(target_modules=["0", "1"], init_weights=how, r=2)
    with pytest.raises(ValueError, match=f"must be True or False for {kind}"):  # beside a layer that has one
        get_peft_model(both, config)


# On quantised bases


@pytest.mark.parametrize("how", ["orthogonal", "pissa"])
@pytest.mark.parametrize("bits", [4, 8])
def test_starts_on_a_quantised_base_read_what_its_weight_stands_for(how, bits):
    bnb = pytest.importorskip("bitsandbytes")
    if bits == 4:
        base = bnb.nn.Linear4bit(64, 64, quant_type="nf4", compute_dtype=torch.float32).to("cpu")
    else:
        base = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False).to("cpu")
    model = style_model(nn.ModuleDict({"layer": base}), random=False, init_weights=how, r=8)
    layer = layers_of(model)[0]
    a, b = factors(layer)
    if how == "orthogonal":
        torch.testing.assert_close(b @ a, torch.zeros(64, 64), rtol=0, atol=1e-5)
        return
    u, s, vh = torch.linalg.svd(layer.get_base_weight().double(), full_matrices=False)
    torch.testing.assert_close((b @ a).double(), u[:, :8] @ torch.diag(s[:8]) @ vh[:8], rtol=0, atol=1e-3)
    x = torch.randn(2, 3, 64)
    assert torch.equal(layer(x), layer.get_base_layer()(x))


def test_starts_of_a_whole_model_train():
    for how in ("orthogonal", "pissa"):
        model = get_peft_model(
            llama(), StyleAdapterConfig(r=4, alpha=ALPHA, target_modules="all-linear", init_weights=how)
        )
        ids = token_ids(2)
        optimizer = torch.optim.SGD(tensors(model).values(), lr=0.05)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[2] < losses[1] < losses[0]
        assert losses[0] == pytest.approx(llama()(input_ids=ids, labels=ids).loss.item(), rel=1e-5)
