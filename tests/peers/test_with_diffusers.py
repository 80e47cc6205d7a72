"""diffusers: UNets and transformers with style adapters, against each image alone and the frozen model."""

import copy
import inspect

import peft
import pytest
import torch
from conftest import gradients, randomise
from peers_fixtures import peer

from style_adapter import OFF, StyleAdapterConfig, export_lora, styled

diffusers = peer("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")

STYLES = ["ink", "oil"]


def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def dit():
    torch.manual_seed(0)
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, num_embeds_ada_norm=9
    ).eval()


def flux():
    torch.manual_seed(0)
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
    ).eval()


def inputs_of(model, rows=2):
    """Random inputs of so many rows, by the names of the model's forward."""
    draw = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(rows, *shape, generator=draw)

    if isinstance(model, diffusers.FluxTransformer2DModel):
        rowwise = {"hidden_states": random(16, 4), "encoder_hidden_states": random(6, 8)}
        rowwise |= {"pooled_projections": random(8), "timestep": torch.linspace(0.2, 0.8, rows)}
        return rowwise, {"img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(6, 3)}
    timestep = {"timestep": torch.arange(rows) + 3}
    if isinstance(model, diffusers.DiTTransformer2DModel):
        return {"hidden_states": random(4, 8, 8), "class_labels": torch.arange(rows) + 1} | timestep, {}
    return {"sample": random(4, 8, 8), "encoder_hidden_states": random(5, 8)} | timestep, {}


def run(model, rows=slice(None), *, times=1, **options):
    """The model's output for some rows of its inputs, all of them so many times, block after block."""
    rowwise, shared = inputs_of(model)
    chosen = {name: torch.cat([value[rows]] * times) for name, value in rowwise.items()}
    return model(**chosen, **shared, **options).sample


def config(**options):
    return StyleAdapterConfig(
        **{"styles": STYLES, "r": 4, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]} | options
    )


MODELS = pytest.mark.parametrize("make", [unet, dit, flux])


@MODELS
def test_a_batch_of_two_styles_is_each_image_alone_and_off_is_the_frozen_model(make):
    frozen = run(make())
    model = randomise(peft.inject_adapter_in_model(config(), make()))
    both, alone = run(model, styles=STYLES), [run(model, slice(i, i + 1), styles=s) for i, s in enumerate(STYLES)]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert (both - run(model, styles=STYLES[::-1])).abs().max() > 1e-2
    torch.testing.assert_close(run(model, styles=OFF), frozen)


@MODELS
def test_guidance_repeats_the_images_and_one_style_an_image_is_enough(make):
    model = randomise(peft.inject_adapter_in_model(config(), make()))
    with styled(model, STYLES):
        guided = run(model, times=2)
    with styled(model, [*STYLES, *STYLES]):
        torch.testing.assert_close(guided, run(model, times=2))
    torch.testing.assert_close(guided, torch.cat([run(model, styles=STYLES)] * 2), atol=1e-4, rtol=1e-4)
    with styled(model, [*STYLES, OFF, OFF]):
        half = run(model, times=2)
    torch.testing.assert_close(half[2:], run(model, styles=OFF), atol=1e-4, rtol=1e-4)


def test_a_pipeline_with_guidance_draws_each_image_as_its_style_alone_does():
    from diffusers_dit import draw, tiny_pipeline

    torch.manual_seed(0)
    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    frozen = draw(pipe, None)
    randomise(peft.inject_adapter_in_model(config(), pipe.transformer))
    both = draw(pipe, STYLES)
    for i, style in enumerate(STYLES):
        torch.testing.assert_close(both[i], draw(pipe, style)[i], atol=1e-5, rtol=1e-4)
    assert (both[0] - draw(pipe, "oil")[0]).abs().max() > 1e-3
    torch.testing.assert_close(draw(pipe, OFF), frozen)


def test_the_models_own_add_adapter_switches_fuses_and_unloads():
    frozen = run(unet())
    model = unet()
    model.add_adapter(config())
    oil = run(randomise(model), styles="oil")
    assert (oil - run(model, styles="ink")).abs().max() > 1e-2
    model.disable_adapters()
    torch.testing.assert_close(run(model), frozen)
    model.enable_adapters()
    with styled(model, "oil"):
        model.fuse_lora()
    torch.testing.assert_close(run(model), oil, atol=1e-5, rtol=1e-4)
    model.unfuse_lora()
    torch.testing.assert_close(run(model, styles="oil"), oil, atol=1e-5, rtol=1e-4)
    model.unload_lora()
    torch.testing.assert_close(run(model), frozen, atol=1e-5, rtol=1e-4)


def test_weights_of_adapters_and_scales_of_calls_are_strengths():
    model = unet()
    model.add_adapter(config(use_rslora=True))
    randomise(model)
    oil, half = run(model, styles="oil"), run(model, styles={"oil": 0.5})
    assert (oil - half).abs().max() > 1e-2
    torch.testing.assert_close(run(model, styles="oil", cross_attention_kwargs={"scale": 0.5}), half)
    assert torch.equal(run(model, styles="oil"), oil)
    model.set_adapters("default", weights=0.5)
    torch.testing.assert_close(run(model, styles="oil"), half)
    model.set_adapters("default")
    assert torch.equal(run(model, styles="oil"), oil)
    with styled(model, "oil"):
        model.fuse_lora(lora_scale=0.5)
    torch.testing.assert_close(run(model), half, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"'default' must not be merged, .* unfuse_lora\(\) in diffusers"):
        model.set_adapters("default", weights=2.0)
    model.unfuse_lora()
    torch.testing.assert_close(run(model, styles="oil"), half, atol=1e-5, rtol=1e-4)


def test_an_adapted_unet_is_saved_and_read_again_by_peft(tmp_path):
    model = randomise(peft.get_peft_model(unet(), config()))
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(unet(), tmp_path).get_base_model()
    assert isinstance(again, diffusers.UNet2DConditionModel)
    assert torch.equal(run(again, styles=STYLES), run(model.get_base_model(), styles=STYLES))


def test_an_exported_style_is_a_lora_that_diffusers_loads(tmp_path):
    model = randomise(peft.get_peft_model(unet(), config()))
    export_lora(model, tmp_path, style="oil")
    plain = unet()
    plain.load_lora_adapter(str(tmp_path), prefix="base_model.model", weight_name="adapter_model.safetensors")
    torch.testing.assert_close(run(plain), run(model.get_base_model(), styles="oil"), atol=1e-5, rtol=1e-4)
    assert (run(plain) - run(unet())).abs().max() > 1e-2


def test_checkpointing_in_a_unet_has_the_gradients_without_it():
    model = unet()
    model.add_adapter(config())
    randomise(model).train()

    def backward(model):
        with styled(model, STYLES):
            loss = run(model).square().mean()
        loss.backward()
        return gradients(model)

    with_it = copy.deepcopy(model)
    with_it.enable_gradient_checkpointing()
    without = backward(model)
    assert max(gradient.abs().max() for gradient in without.values()) > 1e-3
    torch.testing.assert_close(backward(with_it), without)


def test_the_forward_names_the_models_own_inputs_beside_styles():
    model = peft.inject_adapter_in_model(config(), unet())
    assert {"sample", "timestep", "encoder_hidden_states", "styles"} <= set(inspect.signature(model.forward).parameters)
