"""One LoRA as it lies in its folder: its factors, and the refusal of all that is more than factors."""

import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftConfig, load_peft_weights
from torch import Tensor

from .._peft import get_pattern_key

Factors = tuple[Float[Tensor, "r d_in *kernel"], Float[Tensor, "d_out r_group *ones"]]
ROOT = "base_model.model."  # what PEFT's files put before the name of a module
FACTORS = {"A.weight": "A", "B.weight": "B", "embedding_A": "A", "embedding_B": "B"}  # after `.lora_` in PEFT's keys

# Options of a LoRA that leave dW = s * B A as it is. Any other must have its default: an option that is not known here
# may change what the LoRA computes.
PLAIN = {
    *PeftConfig.__dataclass_fields__,
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "fan_in_fan_out", "lora_dropout", "init_lora_weights"),
    *("modules_to_save", "megatron_core", "qalora_group_size", "runtime_config"),
    *("eva_config", "corda_config", "loftq_config", "lora_ga_config"),  # of init_lora_weights, which is checked
}
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica")  # of init_lora_weights: W is not changed


@dataclass(frozen=True)
class Lora:
    """One LoRA as it was read.

    Attributes:
        where: Its style and its folder or repository, as errors name it.
        config: Its configuration.
        factors: A and s * B of each module, by the module's name.
        whole: Tensors of the modules that it trained whole, under the file's keys.
        copies: Tensors of the backbone that PEFT saved along, by their names there.
    """

    where: str
    config: LoraConfig
    factors: dict[str, Factors]
    whole: dict[str, Tensor] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)


def read_lora(name: str, source: str | os.PathLike[str]) -> Lora:
    """The LoRA in the folder or repository `source`, its own scaling folded into B.

    Raises:
        ValueError: It is more than dW = s * B A, or its file and its config disagree.
    """
    where = f"loras[{name!r}]={os.fspath(source)!r}"
    config = PeftConfig.from_pretrained(os.fspath(source))
    if type(config) is not LoraConfig:
        raise ValueError(f"{where}: peft_type={config.peft_type!r} must be LORA; convert it with PEFT's save_as_lora")
    _check_plain(where, config)
    pairs: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    for key, tensor in load_peft_weights(os.fspath(source), device="cpu").items():
        module, mark, factor = key.removeprefix(ROOT).rpartition(".lora_")
        if mark and factor in FACTORS:
            pairs.setdefault(module, {})[FACTORS[factor]] = tensor
        elif mark:
            raise ValueError(
                f"{where}: it holds {key!r} and must hold the factors A and B alone; train a LoRA without it, or merge "
                "this one into a backbone"
            )
        elif any(f".{module}." in f".{key}" for module in config.modules_to_save or ()):
            whole[key] = tensor
        else:
            copies[key.removeprefix(ROOT).replace(".base_layer.", ".")] = tensor
    factors = {module: _factors(where, config, module, pair) for module, pair in pairs.items()}
    return Lora(where, config, factors, whole, copies)


def _check_plain(where: str, config: LoraConfig) -> None:
    """Refuses options with which a LoRA is more than dW = s * B A."""
    if config.init_lora_weights not in PLAIN_STARTS:
        raise ValueError(
            f"{where}: init_lora_weights={config.init_lora_weights!r} must be one of {PLAIN_STARTS}, for it changes "
            "the backbone; save the LoRA with PEFT's path_initial_model_for_weight_conversion, which makes it plain"
        )
    for option in fields(LoraConfig):
        value = getattr(config, option.name)
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if option.name not in PLAIN and value != default and value:
            raise ValueError(
                f"{where}: {option.name}={value!r} must be {default!r}, or the LoRA is more than s * B A; train it "
                "without that option, or merge it into a backbone"
            )


def _factors(where: str, config: LoraConfig, module: str, pair: Mapping[str, Tensor]) -> Factors:
    """A and s * B of one module, s = alpha / r or alpha / sqrt(r), in fp32 at least."""
    if set(pair) != {"A", "B"}:
        raise ValueError(f"{where}: {module} must have lora_A and lora_B, found {sorted(pair)}; the file is broken")
    a, b = (pair[factor].to(torch.promote_types(pair[factor].dtype, torch.float32)) for factor in "AB")
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    r = ranks.get(get_pattern_key(list(ranks), module), config.r)
    alpha = alphas.get(get_pattern_key(list(alphas), module), config.lora_alpha)
    if a.shape[0] != r:
        raise ValueError(f"{where}: {module} has rank {a.shape[0]} and its config says {r}; the file is broken")
    return a, b * (alpha / (math.sqrt(r) if config.use_rslora else r))
