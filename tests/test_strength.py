"""Strength by block, and batches that hold their rows several times: against weights scaled by hand."""

from typing import Any

import pytest
import torch
from conftest import STYLES, adapted, llama, randomise, t5, token_ids
from peft import PeftModel
from torch import Tensor, nn

from style_adapter import OFF, StyleAdapterConfig, styled
from style_adapter.layers import StyleLayer
from style_adapter.style import layer_strengths

EXACT = {"rtol": 0, "atol": 1e-9}
LAYERS = [f"model.layers.{i}.{part}" for i in range(12) for part in ("self_attn.q_proj", "mlp.up_proj")]


@pytest.fixture
def model() -> PeftModel:
    """A Llama in fp64, every linear layer adapted."""
    return adapted(llama(), target_modules="all-linear", task_type="CAUSAL_LM").double()


def logits(model: nn.Module, ids: Tensor, **options: Any) -> Tensor:
    """Logits without gradient."""
    with torch.no_grad():
        return model(input_ids=ids, **options).logits


def by_hand(model: PeftModel, plain: nn.Module, spec: Any, factor: Any, adapter: str = "default") -> nn.Module:
    """`plain` with the delta weight of each adapted layer added, times `factor(name)`."""
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, StyleLayer) and adapter in layer.r:
            delta = layer.get_delta_weight(adapter, layer.style_context.banks[adapter].code(spec))
            plain.get_parameter(f"{name}.weight").data += factor(name) * delta.detach()
    return plain


def block_of(name: str) -> int:
    """The number of the block that a layer lies in."""
    return int(name.split("layers.")[1].split(".", maxsplit=1)[0])


CASES = {
    "a block": ({"layers.0-0": 0.5}, lambda n: 0.5 if block_of(n) == 0 else 1.0),
    "a number": ({"layers.1": -2.0}, lambda n: -2.0 if block_of(n) == 1 else 1.0),
    "all blocks": ({"layers.0-11": 0.5}, lambda n: 0.5),
    "a kind": ({"mlp": 0}, lambda n: 0.0 if ".mlp." in n else 1.0),
    "a kind in a block": ({"layers.1.self_attn": 3.0}, lambda n: 3.0 if "layers.1.self_attn" in n else 1.0),
    "overlapping": (
        {"layers.0-1": 0.5, "q_proj": 4.0, "layers.0": 0.25},
        lambda n: 0.5 * (4.0 if "q_proj" in n else 1.0) * (0.25 if block_of(n) == 0 else 1.0),
    ),
    "one for all": (0.375, lambda n: 0.375),
}


@pytest.mark.parametrize(("strength", "factor"), CASES.values(), ids=CASES)
def test_blocks_run_as_if_their_weights_were_scaled_by_hand(model, ids, strength, factor):
    for spec in ("kjv", {"kjv": 0.5, "pirate": -1.0}):
        expected = logits(by_hand(model, llama().double(), spec, factor), ids)
        with model.styled(spec, strength=strength):
            torch.testing.assert_close(logits(model, ids), expected, **EXACT)
        torch.testing.assert_close(logits(model, ids, styles=spec, style_strength=strength), expected, **EXACT)
        assert not torch.allclose(logits(model, ids, styles=spec), expected, atol=1e-6)


def test_one_number_is_the_strength_of_the_style_itself(model, ids):
    scaled = logits(model, ids, styles=0.3 * model.styles["kjv"])
    torch.testing.assert_close(logits(model, ids, styles="kjv", style_strength=0.3), scaled, **EXACT)


def test_strength_holds_for_each_row_features_and_noise():
    model = adapted(llama(), style_dim=2, noise_dim=3).double()
    spec = model.styles["kjv"]
    spec = type(spec)(spec.weights, torch.tensor([1.0, -1.0]))
    ids, z, strength = token_ids(2), torch.randn(2, 3), {"layers.0": 0.5}
    together = logits(model, ids, styles=[spec, "modern"], style_noise=z, style_strength=strength)
    for i, own in enumerate((spec, "modern")):
        alone = logits(model, ids[i : i + 1], styles=own, style_noise=z[i : i + 1], style_strength=strength)
        torch.testing.assert_close(together[i : i + 1], alone, **EXACT)
    nothing = logits(model, ids, styles=[spec, "modern"], style_noise=z, style_strength={"layers": 0.0})
    torch.testing.assert_close(nothing, logits(llama().double(), ids), **EXACT)


def test_a_side_of_an_encoder_decoder_is_a_pattern():
    model, ids = adapted(t5(), target_modules="all-linear").double(), token_ids(2)
    for side in ("encoder", "decoder"):
        plain = by_hand(model, t5().double(), "kjv", lambda n, side=side: 0.0 if n.startswith(side) else 1.0)
        found = logits(model, ids, decoder_input_ids=ids, styles="kjv", style_strength={side: 0.0})
        torch.testing.assert_close(found, logits(plain, ids, decoder_input_ids=ids), **EXACT)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generation_takes_a_strength_by_block(model, options):
    ids = token_ids(3)
    options |= {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False}
    strength = {"layers.0-0": 0.5, "layers.1-11": 2.0}
    plain = by_hand(model, llama().double(), "kjv", lambda n: 0.5 if block_of(n) == 0 else 2.0)
    expected = plain.generate(ids, **options)
    assert torch.equal(model.generate(input_ids=ids, styles="kjv", style_strength=strength, **options), expected)
    with model.styled("kjv", strength=strength):
        assert torch.equal(model.generate(input_ids=ids, **options), expected)
    rows = model.generate(input_ids=ids, styles=["kjv"] * 3, style_strength=strength, **options)
    assert torch.equal(rows, expected)
    assert not torch.equal(model.generate(input_ids=ids, styles="kjv", **options), expected)


def test_a_merge_keeps_the_strength_by_block(model, ids):
    strength = {"layers.0": 0.5, "mlp": -1.0}
    expected = logits(model, ids, styles="kjv", style_strength=strength)
    with model.styled("kjv", strength=strength):
        model.merge_adapter()
        model.unmerge_adapter()
        merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, ids), expected, **EXACT)


def test_a_code_with_a_strength_keeps_it_and_takes_another_on_top(model, ids):
    expected = logits(model, ids, styles="kjv", style_strength={"layers.0": 0.5, "mlp": 3.0})
    with model.styled("kjv", strength={"layers.0": 0.5}):
        code = model.get_base_model().model.layers[0].mlp.up_proj.style_context.in_force().codes["default"]
    half = logits(model, ids, styles="kjv", style_strength={"layers.0": 0.5})
    torch.testing.assert_close(logits(model, ids, styles=code), half, **EXACT)
    torch.testing.assert_close(logits(model, ids, styles=code, style_strength={"mlp": 3.0}), expected, **EXACT)


def test_an_inner_block_replaces_the_strength_of_an_outer_one(model, ids):
    expected = logits(model, ids, styles="kjv")
    with model.styled("kjv", strength={"layers.0": 0.5}):
        half = logits(model, ids)
        with model.styled("kjv"):
            assert torch.equal(logits(model, ids), expected)
        assert torch.equal(logits(model, ids), half)
    assert not torch.equal(half, expected)


# Several adapters


def test_strength_reaches_every_adapter_that_is_addressed(model, ids):
    model.add_adapter("second", StyleAdapterConfig(styles=["robot"], r=2, target_modules=["up_proj"]))
    randomise(model).double().eval()
    model.base_model.set_adapter(["default", "second"])
    half = {"layers.0": 0.5}
    plain = by_hand(model, llama().double(), "kjv", lambda n: 0.5 if block_of(n) == 0 else 1.0)
    plain = by_hand(model, plain, "robot", lambda n: 0.5 if block_of(n) == 0 else 1.0, "second")
    spec = {"default": "kjv", "second": "robot"}
    torch.testing.assert_close(logits(model, ids, styles=spec, style_strength=half), logits(plain, ids), **EXACT)
    with model.styled({"default": "kjv"}), model.styled({"second": "robot"}, strength=half):
        only_second = by_hand(model, llama().double(), "kjv", lambda n: 1.0)
        only_second = by_hand(model, only_second, "robot", lambda n: 0.5 if block_of(n) == 0 else 1.0, "second")
        torch.testing.assert_close(logits(model, ids), logits(only_second, ids), **EXACT)


def test_a_pattern_must_name_a_layer_of_an_adapter_that_is_addressed(model, ids):
    model.add_adapter("second", StyleAdapterConfig(styles=["robot"], r=2, target_modules=["up_proj"]))
    assert logits(model, ids, styles={"second": "robot"}, style_strength={"up_proj": 0.5}).shape[0] == 3
    with pytest.raises(ValueError, match=r"'q_proj' must name an adapted layer, such as 'model\.layers\.0\.mlp"):
        logits(model, ids, styles={"second": "robot"}, style_strength={"q_proj": 0.5})
    model.set_adapter("second")
    model.delete_adapter("default")
    with pytest.raises(ValueError, match="strength: 'q_proj' must name an adapted layer"):
        logits(model, ids, styles="robot", style_strength={"q_proj": 0.5})


# Patterns


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("layers.0-3", 8),
        ("layers.3-3", 2),
        ("layers.1", 2),
        ("1", 2),
        ("self_attn", 12),
        ("layers.0-3.mlp", 4),
        ("", 24),
    ],
)
def test_a_pattern_names_whole_parts_and_ranges_with_both_ends(pattern, count):
    factors = layer_strengths(LAYERS, {pattern: 0.5})
    assert int((factors == 0.5).sum()) == count
    assert int((factors == 1.0).sum()) == len(LAYERS) - count


@pytest.mark.parametrize("pattern", ["layers.12-20", "layers.3-1", "layer", "q_pro", "layers.0-", "mlp.layers"])
def test_a_pattern_that_names_nothing_raises(model, ids, pattern):
    with pytest.raises(ValueError, match=f"strength: '{pattern}' must name an adapted layer, such as 'model.layers.0"):
        layer_strengths(LAYERS, {pattern: 0.5})
    with pytest.raises(ValueError, match=r"blocks is written 'layers\.0-11'"):
        logits(model, ids, styles="kjv", style_strength={"mlp": 2.0, pattern: 0.5})


# Rows that a batch holds several times


@pytest.mark.parametrize("times", [1, 2, 3])
def test_tiled_rows_keep_their_style(model, times):
    ids = token_ids(3)
    expected = torch.cat([logits(model, row[None], styles=s) for row, s in zip(ids, STYLES, strict=True)])
    batch = ids.repeat(times, 1)  # as classifier-free guidance does: all rows, and all rows again
    with model.styled(STYLES, tiled=True):
        torch.testing.assert_close(logits(model, batch), expected.repeat(times, 1, 1), **EXACT)
    if times > 1:
        with pytest.raises(ValueError, match=r"3 styles for a batch of \d rows; .* wants styled\(..., tiled=True\)"):
            logits(model, batch, styles=STYLES)
    with model.styled(STYLES, tiled=True), pytest.raises(ValueError, match="3 styles for a batch of 4 rows"):
        logits(model, token_ids(4))


@pytest.mark.parametrize("strength", [1.0, {"layers.0": 0.5}], ids=str)
def test_tiled_rows_take_a_strength_and_one_style_needs_no_tiling(model, strength):
    ids = token_ids(2)
    expected = logits(model, ids, styles=["kjv", OFF], style_strength=strength)
    with model.styled(["kjv", OFF], tiled=True, strength=strength):
        torch.testing.assert_close(logits(model, ids.repeat(2, 1)), expected.repeat(2, 1, 1), **EXACT)
    assert torch.equal(
        logits(model, ids.repeat(2, 1), styles="kjv")[:2], logits(model, ids.repeat(2, 1), styles="kjv")[2:]
    )


def test_models_of_diffusers_are_tiled_unless_told_otherwise(model):
    class Denoiser(nn.Module):
        """Stands for a model of diffusers, which calls its network with all rows twice."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, ids: Tensor) -> Tensor:
            return logits(self.network, ids.repeat(2, 1))

    denoiser, ids = Denoiser(), token_ids(3)
    Denoiser.__module__ = "diffusers.models.fake"
    expected = logits(model, ids, styles=STYLES).repeat(2, 1, 1)
    with styled(denoiser, STYLES):
        torch.testing.assert_close(denoiser(ids), expected, **EXACT)
    with styled(denoiser, STYLES, tiled=False), pytest.raises(ValueError, match="3 styles for a batch of 6 rows"):
        denoiser(ids)
