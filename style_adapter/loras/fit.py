"""Whether LoRAs fit a backbone and one another: all that is refused before the model is touched."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._peft import BaseTunerLayer, features_of
from ..layers import layer_class
from .lora import Lora

DECIDED = {
    *("r", "alpha", "styles", "target_modules", "rank_pattern", "alpha_pattern", "modules_to_save", "use_rslora"),
    *("exclude_modules", "layers_to_transform", "layers_pattern", "init_weights", "trainable", "format_version"),
    "target_parameters",
}


def check_arguments(model: nn.Module, loras: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuses what cannot be a backbone, no LoRAs, and options that the LoRAs decide."""
    if not loras:
        raise ValueError("loras={} must hold at least one LoRA; give {'name of the style': 'its folder or hub id'}")
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ValueError("model must be a plain backbone and has adapters already; load it anew, or unload() them")
    decided = sorted(DECIDED & set(options))
    if decided:
        raise ValueError(f"{decided[0]}={options[decided[0]]!r} must be left out; the LoRAs decide what is adapted how")


def check_fit(lora: Lora, modules: Mapping[str, nn.Module]) -> None:
    """Refuses a LoRA of another backbone, or on layers that cannot be adapted alike."""
    for name, (a, b) in lora.factors.items():
        attention = modules.get(name.partition(".base_layer.")[0])
        if isinstance(attention, nn.MultiheadAttention):
            raise ValueError(
                f"{lora.where}: {name} must not be in a MultiheadAttention: PEFT counts the LoRA of its out_proj twice "
                "(0.21.2), so what this one means depends on PEFT's release; merge it into a backbone"
            )
        module = modules.get(name)
        if module is None:
            raise ValueError(f"{lora.where}: the model has no module {name!r}; give the backbone it was trained on")
        layer_class(module, name)
        if getattr(module, "groups", 1) != 1 or getattr(module, "padding_mode", "zeros") != "zeros":
            raise ValueError(
                f"{lora.where}: the convolution {name} must have one group and pad with zeros: PEFT's LoRA has an A "
                "without either; merge this LoRA into a backbone"
            )
        (d_in, d_out), kernel = features_of(module), tuple(getattr(module, "kernel_size", ()))
        wanted = [(a.shape[0], d_in, *kernel), (d_out, a.shape[0], *(1 for _ in kernel))]
        if [a.shape, b.shape] != wanted:
            raise ValueError(
                f"{lora.where}: {name} has factors of shapes {[*a.shape]} and {[*b.shape]}, and on the model's they "
                f"must be {[*wanted[0]]} and {[*wanted[1]]}; give the backbone it was trained on"
            )


def check_copies(lora: Lora, model: nn.Module) -> None:
    """Refuses a LoRA whose file changes the backbone; PEFT saves adapted embeddings along, also unchanged ones."""
    own = dict(model.named_parameters(remove_duplicate=False)) if lora.copies else {}
    for name, tensor in lora.copies.items():
        same = name in own and own[name].shape == tensor.shape
        if not same or not torch.equal(own[name].detach().cpu(), tensor.to(own[name].dtype)):
            raise ValueError(
                f"{lora.where}: it holds {name!r} with other values than the model, and must leave the backbone as it "
                "is; give the backbone it was trained on, or merge this LoRA into one"
            )


def shared_whole(loras: Sequence[Lora]) -> dict[str, Tensor]:
    """The modules trained whole: an adapter has one of each for all its styles, so all LoRAs must have the same."""
    first = loras[0]
    for lora in loras[1:]:
        same = lora.whole.keys() == first.whole.keys()
        if not same or any(not torch.equal(tensor, first.whole[key]) for key, tensor in lora.whole.items()):
            modules = sorted({m for both in (first, lora) for m in both.config.modules_to_save or ()})
            raise ValueError(
                f"{first.where}, {lora.where}: modules_to_save={modules} must hold the same values, for all styles "
                "share them; train these LoRAs on one frozen head, or make an adapter of each"
            )
    return dict(first.whole)


def warn_of_other_bases(loras: Sequence[Lora], model: str) -> None:
    """A warning where LoRAs name other backbones; a folder and a hub id are one if they end alike."""
    bases = [model, *(str(lora.config.base_model_name_or_path or "") for lora in loras)]
    named = {base.rstrip("/").rpartition("/")[2]: base for base in bases if base}
    if len(named) > 1:
        warnings.warn(
            f"loras: trained on, and put on, backbones of other names: {', '.join(named.values())}; a LoRA is exact on "
            "its own backbone only",
            stacklevel=3,
        )


def shared_task(loras: Sequence[Lora]) -> Any:
    """The task that the LoRAs agree on."""
    found = {lora.config.task_type for lora in loras if lora.config.task_type}
    if len(found) > 1:
        raise ValueError(f"loras: their task_type must agree, found {sorted(map(str, found))}; pass task_type=...")
    return next(iter(found), None)
