"""diffusers: a style adapter on the transformer of a pipeline, with classifier-free guidance, saved and read again.

    python examples/peers/diffusers_dit.py
    python examples/peers/diffusers_dit.py --model facebook/DiT-XL-2-256

`get_peft_model` adapts the transformer (or UNet) in place, and the pipeline goes on calling it; a UNet's own
`add_adapter` and `peft.inject_adapter_in_model` do the same without the wrapper that saves. Guidance runs
[conditional..., unconditional...] in one batch: one style an image is enough, and `[*styles, OFF, OFF]` would leave the
unconditional half to the frozen model. Save with `save_pretrained`: diffusers does not read back what its own
`save_lora_adapter` writes of a style adapter. To leave, `export_lora(adapted, folder, style="ink")`, and then
`unet.load_lora_adapter(folder, prefix="base_model.model", weight_name="adapter_model.safetensors")` without us.
"""

import tempfile
from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from peft import PeftModel, get_peft_model
from tiny import arguments
from torch import Tensor
from transformers import set_seed

from style_adapter import StyleAdapterConfig, styled


def main(argv: Sequence[str] | None = None) -> dict[str, Tensor]:
    args = arguments(__doc__, argv)
    set_seed(0)
    pipe = DiTPipeline.from_pretrained(args.model) if args.model else tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    config = StyleAdapterConfig(
        styles=["ink", "oil"], target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_weights=False
    )
    adapted = get_peft_model(pipe.transformer, config)  # random weights: an untrained adapter would change nothing
    images = {str(styles): draw(pipe, styles) for styles in ("ink", "oil", ["ink", "oil"])}

    with tempfile.TemporaryDirectory() as folder:
        adapted.save_pretrained(folder)
        plain = adapted.unload()
        images["frozen"] = draw(pipe, None)
        pipe.transformer = PeftModel.from_pretrained(plain, folder).get_base_model()
    images["read again"] = draw(pipe, ["ink", "oil"])
    for name, pixels in images.items():
        print(
            f"{name:>16}: mean {pixels.mean():.4f}, first image against the frozen one "
            f"{(pixels[0] - images['frozen'][0]).abs().mean():.4f}"
        )
    return images


def draw(pipe: DiTPipeline, styles: str | list[str] | None) -> Tensor:
    """Two images [2, channels, height, width] from equal noise, guided; None runs what is there without a style."""
    options = {"class_labels": [1, 2], "guidance_scale": 4.0, "num_inference_steps": 2, "output_type": "pt"}
    seed = torch.Generator().manual_seed(0)
    if styles is None:
        return pipe(**options, generator=seed).images
    with styled(pipe.transformer, styles):
        return pipe(**options, generator=seed).images


def tiny_pipeline() -> DiTPipeline:
    """A random pipeline that draws 16 x 16 pixels."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=1000,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    return DiTPipeline(transformer=transformer.eval(), vae=vae.eval(), scheduler=DDIMScheduler())


if __name__ == "__main__":
    main()
