"""What leaves the house: one fixed style as a plain LoRA, exactly and at the same rank."""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ._peft import PREFIX, STYLE_ADAPTER, exact_targets
from .config import StyleAdapterConfig
from .functional import fixed_b
from .layers import ParamWrapper, StyleConv, StyleEmbedding, StyleLayer, StyleLinear
from .style import StyleCode, layer_strengths

# What PEFT calls A and B of a layer; their shapes are ours.
FACTOR_NAMES: dict[type[StyleLayer], tuple[str, str]] = {
    StyleLinear: ("lora_A.weight", "lora_B.weight"),
    StyleConv: ("lora_A.weight", "lora_B.weight"),
    StyleEmbedding: ("lora_embedding_A", "lora_embedding_B"),
    ParamWrapper: ("lora_A.weight", "lora_B.weight"),
}

# What vLLM takes for --max-lora-rank, and what it has without the option.
VLLM_RANKS, VLLM_RANK = (1, 8, 16, 32, 64, 128, 256, 320, 512), 16


def export_lora(
    model: PeftModel,
    folder: str | os.PathLike[str],
    *,
    style: Any = None,
    strength: float | int | Mapping[str, float | int] = 1.0,
    adapter_name: str | None = None,
    include_modules_to_save: bool = False,
) -> LoraConfig:
    """Writes one style as a LoRA that stock PEFT, vLLM or diffusers load without this package.

    The factors are exact: A stays, and B diag(g) with the whole scaling in it takes the place of B, so the LoRA has
    the adapter's rank, lora_alpha = r and scaling 1 in every layer: dW = (s * B diag(g)) A.

    Args:
        model: A model with a style adapter.
        folder: Made if missing; gets `adapter_config.json` and `adapter_model.safetensors`.
        style: A name, a `Style`, a mixture; the default style if left out.
        strength: A factor on the style, for all layers or by block, as `styled` takes it.
        adapter_name: Which adapter; the active one if left out.
        include_modules_to_save: Whether modules that were trained whole, such as a classifier's head, go along, which
            PEFT loads and vLLM refuses. Without it an adapter that has some is not exported: it would lose them.

    Returns:
        The LoRA's configuration, as written.

    Raises:
        ValueError: Several styles (one a row), an unknown style, or an adapter that trained more than a LoRA file of
            one style would hold: biases, the backbone, whole modules unless they are included.
    """
    adapter = adapter_name or model.active_adapters[0]
    config = _style_config(model, adapter, include_modules_to_save)
    layers = dict(_adapted_layers(model, adapter))
    bank = next(iter(layers.values())).style_context.banks[adapter]
    code = bank.default_code() if style is None else bank.code(style)
    if strength != 1.0:
        names = next(iter(layers.values())).style_context.layers
        code = replace(code, strength=layer_strengths(names, strength))
    tensors = _whole_modules(model, adapter) if include_modules_to_save else {}
    for name, layer in layers.items():
        tensors |= {f"{name}.{key}": tensor for key, tensor in lora_tensors(layer, adapter, code).items()}
    lora = _lora_config(config, layers, adapter, model)
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, SAFETENSORS_WEIGHTS_NAME), metadata={"format": "pt"})
    lora.save_pretrained(os.fspath(folder))
    return lora


def lora_tensors(layer: StyleLayer, adapter: str, code: StyleCode) -> dict[str, Tensor]:
    """A [r, d_in] and s * B diag(g) [d_out, r] of one layer under PEFT's names: their product is `delta_weight`.

    Raises:
        ValueError: A layer of which PEFT's LoRA has no counterpart.
    """
    name_a, name_b = FACTOR_NAMES.get(type(layer), ("", ""))
    base = layer.get_base_layer()
    if not name_a or not _lora_follows(base):
        raise ValueError(
            f"{layer.key}: a LoRA must be on Linear, Conv1D or Embedding layers or convolutions of one group, without "
            f"dilation, padded with zeros, found {type(base).__name__}; use merge_and_unload inside "
            "`with model.styled(style)` instead"
        )
    a, b = (layer.get_parameter(f"{PREFIX}{name}.{adapter}.weight").detach() for name in ("A", "B"))
    gate = layer.fixed_gate(adapter, code).detach().to(b.device, b.dtype)
    columns = gate.repeat_interleave(b.shape[1] // len(gate))  # stacked experts have as many of each rank
    exported = fixed_b(b.flatten(1), columns, layer.scaling[adapter]).view_as(b)
    return {name_a: a.clone(), name_b: exported.contiguous()}


def _lora_follows(base: Any) -> bool:
    """Whether PEFT's LoRA does to its A what `base` does to W: it has no groups, dilation or other padding."""
    if isinstance(base, nn.Embedding):
        return type(base).forward is nn.Embedding.forward or hasattr(base, "embed_scale")
    options = {"groups": 1, "padding_mode": "zeros"}
    dilated = max(getattr(base, "dilation", (1,))) > 1
    return not dilated and all(getattr(base, name, plain) == plain for name, plain in options.items())


def _whole_modules(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """The modules that the adapter trained whole, under the keys of PEFT's files."""
    tensors = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    return {key: tensor.detach().clone() for key, tensor in tensors.items() if PREFIX not in key}


def _style_config(model: PeftModel, adapter: str, include_modules_to_save: bool) -> StyleAdapterConfig:
    """The adapter's config, if a LoRA of one style can hold all that it trained."""
    config = model.peft_config[adapter]
    if config.peft_type != STYLE_ADAPTER:
        raise ValueError(f"adapter_name={adapter!r} must be a style adapter, found {config.peft_type}")
    assert isinstance(config, StyleAdapterConfig)
    merge = "use merge_and_unload inside `with model.styled(style)` instead"
    for option, plain in (("bias", "none"), ("trainable", "adapter")):
        value = getattr(config, option)
        if value != plain and not value.startswith("top:"):
            raise ValueError(
                f"{option}={value!r} must be {plain!r} to export a plain LoRA: it would lose them; {merge}"
            )
    if config.modules_to_save and not include_modules_to_save:
        raise ValueError(
            f"modules_to_save={config.modules_to_save} must be None to export a plain LoRA: it would lose them; take "
            f"them along with include_modules_to_save=True, which PEFT loads and vLLM refuses, or {merge}"
        )
    return config


def _adapted_layers(model: PeftModel, adapter: str) -> Iterator[tuple[str, StyleLayer]]:
    """Names and layers that `adapter` adapts."""
    for name, module in model.named_modules():
        if isinstance(module, StyleLayer) and adapter in module.r:
            yield name, module


def _lora_config(
    config: StyleAdapterConfig, layers: Mapping[str, StyleLayer], adapter: str, model: PeftModel
) -> LoraConfig:
    """The LoRA's config: all that is adapted by its full name, alpha = r so that the scaling is 1."""
    backbone = model.get_base_model()
    modules: dict[str, Any] = {name: m for name, m in backbone.named_modules() if ".base_layer" not in name}
    parameters = {each.key: each.r[adapter] for each in layers.values() if isinstance(each, ParamWrapper)}
    plain = {name: each for name, each in layers.items() if not isinstance(each, ParamWrapper)}
    ranks = {name.removeprefix("base_model.model."): each.r[adapter] for name, each in plain.items()}
    most, targets = max((*ranks.values(), *parameters.values())), exact_targets(list(ranks), modules)
    start = "^" if isinstance(targets, str) else ""  # where a name alone would match the end of another
    other = {start + name: rank for name, rank in (ranks | parameters).items() if rank != most}
    return LoraConfig(
        r=most,
        lora_alpha=most,
        target_modules=targets,
        target_parameters=sorted(parameters) or None,
        rank_pattern=other,
        alpha_pattern=dict(other),
        fan_in_fan_out=not parameters and all(isinstance(each.get_base_layer(), Conv1D) for each in plain.values()),
        modules_to_save=config.modules_to_save,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        inference_mode=True,
    )


def vllm_command(model: PeftModel, lora: LoraConfig, folder: str | os.PathLike[str], *, base: str | None = None) -> str:
    """The line that serves an exported folder with vLLM, under the folder's name.

    vLLM reads LoRAs of Linear layers of decoders, up to a rank that it must be told; modules that were trained whole,
    biases and DoRA are refused, and an export has none.

    Args:
        model: What was exported.
        lora: What `export_lora` gave.
        folder: Where it was written.
        base: Folder or hub id of the backbone; the recorded one if left out.

    Raises:
        ValueError: vLLM would not read the folder; the message says why.
    """
    reason = _not_for_vllm(model, lora)
    if reason:
        raise ValueError(f"{os.fspath(folder)}: vLLM does not read {reason}; load it with PEFT")
    path = os.path.abspath(folder)
    name = os.path.basename(path).replace("=", "-")  # what stands before the first = is the name
    words = ["vllm", "serve", base or lora.base_model_name_or_path or "BACKBONE", "--enable-lora"]
    if lora.r > VLLM_RANK:
        words += ["--max-lora-rank", str(min(rank for rank in VLLM_RANKS if rank >= lora.r))]
    return shlex.join([*words, "--lora-modules", f"{name}={path}"])


def _not_for_vllm(model: PeftModel, lora: LoraConfig) -> str:
    """What of a LoRA vLLM has no place for; empty if it reads all."""
    layers = dict(_adapted_layers(model, model.active_adapters[0]))
    other = [name for name, each in layers.items() if not _is_linear(each)]
    if getattr(model.config, "is_encoder_decoder", False):
        return "LoRAs of encoder-decoders"
    if other:
        return f"LoRAs of anything but Linear layers, such as {other[0].removeprefix('base_model.model.')}"
    if lora.modules_to_save:
        return f"modules that were trained whole, such as {lora.modules_to_save[0]}"
    if lora.r > VLLM_RANKS[-1]:
        return f"LoRAs of rank {lora.r}, above {VLLM_RANKS[-1]}"
    return ""


def _is_linear(layer: StyleLayer) -> bool:
    """Whether the base is a Linear layer, quantised ones included; Conv1D has its weight the other way round."""
    return isinstance(layer, StyleLinear) and not isinstance(layer.get_base_layer(), Conv1D)
