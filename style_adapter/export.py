"""What leaves the house: one fixed style as a plain LoRA, exactly and at the same rank."""

import os
from collections.abc import Iterator
from typing import Any

from peft import LoraConfig, PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ._peft import PREFIX, STYLE_ADAPTER
from .config import StyleAdapterConfig
from .functional import fixed_b
from .layers import StyleLayer
from .style import StyleCode


def export_lora(
    model: PeftModel, folder: str | os.PathLike[str], *, style: Any = None, adapter_name: str | None = None
) -> LoraConfig:
    """Writes one style as a LoRA that stock PEFT, vLLM or diffusers load without this package.

    The factors are exact: A stays, and B diag(g) with the whole scaling in it takes the place of B, so the LoRA has
    the adapter's rank, lora_alpha = r and scaling 1 in every layer: dW = (s * B diag(g)) A.

    Args:
        model: A model with a style adapter.
        folder: Made if missing; gets `adapter_config.json` and `adapter_model.safetensors`.
        style: A name, a `Style`, a mixture; the default style if left out.
        adapter_name: Which adapter; the active one if left out.

    Returns:
        The LoRA's configuration, as written.

    Raises:
        ValueError: Several styles (one a row), an unknown style, or an adapter that trained biases or whole modules,
            which a LoRA file of one style would lose.
    """
    adapter = adapter_name or model.active_adapters[0]
    config = _style_config(model, adapter)
    layers = dict(_adapted_layers(model, adapter))
    bank = next(iter(layers.values())).style_context.banks[adapter]
    code = bank.default_code() if style is None else bank.code(style)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        a, b = lora_factors(layer, adapter, code)
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
    ranks = {name.removeprefix("base_model.model."): layer.r[adapter] for name, layer in layers.items()}
    lora = _lora_config(
        config, ranks, fan_in_fan_out=all(isinstance(layer.get_base_layer(), Conv1D) for layer in layers.values())
    )
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, SAFETENSORS_WEIGHTS_NAME), metadata={"format": "pt"})
    lora.save_pretrained(os.fspath(folder))
    return lora


def lora_factors(layer: StyleLayer, adapter: str, code: StyleCode) -> tuple[Tensor, Tensor]:
    """A [r, d_in] and s * B diag(g) [d_out, r] of one layer: their product is `delta_weight`."""
    assert isinstance(layer, nn.Module)
    a, b = (layer.get_parameter(f"{PREFIX}{name}.{adapter}.weight").detach() for name in ("A", "B"))
    gate = layer.fixed_gate(adapter, code).detach()
    return a.clone(), fixed_b(b, gate, layer.scaling[adapter]).contiguous()


def _style_config(model: PeftModel, adapter: str) -> StyleAdapterConfig:
    """The adapter's config, if a LoRA of one style can hold all that it trained."""
    config = model.peft_config[adapter]
    if config.peft_type != STYLE_ADAPTER:
        raise ValueError(f"adapter_name={adapter!r} must be a style adapter, found {config.peft_type}")
    assert isinstance(config, StyleAdapterConfig)
    if config.bias != "none" or config.modules_to_save:
        raise ValueError(
            f"bias={config.bias!r}, modules_to_save={config.modules_to_save} must be 'none' and None to export a "
            "plain LoRA: it would lose them; use merge_and_unload inside `with model.styled(style)` instead"
        )
    return config


def _adapted_layers(model: PeftModel, adapter: str) -> Iterator[tuple[str, StyleLayer]]:
    """Names and layers that `adapter` adapts."""
    for name, module in model.named_modules():
        if isinstance(module, StyleLayer) and adapter in module.r:
            yield name, module


def _lora_config(config: StyleAdapterConfig, ranks: dict[str, int], *, fan_in_fan_out: bool) -> LoraConfig:
    """The LoRA's config: every adapted module by its full name, alpha = r so that the scaling is 1."""
    most = max(ranks.values())
    other = {name: rank for name, rank in ranks.items() if rank != most}
    return LoraConfig(
        r=most,
        lora_alpha=most,
        target_modules=sorted(ranks),
        rank_pattern=other,
        alpha_pattern=dict(other),
        fan_in_fan_out=fan_in_fan_out,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        inference_mode=True,
    )
