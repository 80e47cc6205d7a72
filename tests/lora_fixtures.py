"""Random LoRAs made with stock PEFT and saved: what style adapters are made of, and judged by."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from conftest import token_ids
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn


def make_lora(backbone: nn.Module, folder: str | PathLike[str], seed: int = 0, **options: Any) -> PeftModel:
    """A random LoRA of PEFT on `backbone`, saved in `folder`."""
    model = get_peft_model(backbone, LoraConfig(**options)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3, generator=generator)
    model.save_pretrained(folder)
    return model


def logits(model: nn.Module, **styles: Any) -> Tensor:
    """What a model says of two rows of tokens."""
    with torch.no_grad():
        return model(input_ids=token_ids(2), **styles).logits


def deltas(model: nn.Module, adapter: str) -> dict[str, Tensor]:
    """dW of each module that PEFT's LoRA `adapter` adapts, by the module's name in the backbone."""
    with torch.no_grad():
        return {
            name.removeprefix("base_model.model."): module.get_delta_weight(adapter)
            for name, module in model.named_modules()
            if adapter in getattr(module, "lora_A", {})
        }


def weighted_sum(parts: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """sum_k w_k * dW_k of each module; a module that a LoRA does not adapt adds nothing."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        for module, delta in parts[name].items():
            found[module] = found.get(module, torch.zeros_like(delta)) + weight * delta
    return found
