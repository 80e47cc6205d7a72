"""LoRAs side by side in the rank, each opened by the gate of its style."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn

from .._peft import PREFIX, exact_targets
from ..config import StyleAdapterConfig
from .fit import check_arguments, check_copies, check_fit, shared_task, shared_whole, warn_of_other_bases
from .lora import ROOT, Lora, read_lora


def from_loras(
    model: nn.Module,
    loras: Mapping[str, str | os.PathLike[str]],
    *,
    default_style: str | None = None,
    adapter_name: str = "default",
    **options: Any,
) -> PeftModel:
    """A style adapter whose styles are the given LoRAs: dW_k = s_k * B_k A_k for style k, exactly.

    The LoRAs lie side by side in the rank: A = [A_1; A_2; ...], B = [s_1 B_1, s_2 B_2, ...], and the gate of style k
    is 1 on its own block and 0 elsewhere, with alpha = r so that nothing else scales. A layer's rank is the sum over
    the LoRAs that adapt it; each LoRA may have its own ranks, alphas and modules. Mixtures are sums of the LoRAs
    themselves, without the cross terms of averaged factors: dW = sum_k w_k * dW_k.

    Args:
        model: The backbone that the LoRAs were trained on, without adapters; adapted in place, as PEFT does.
        loras: Folder or hub id of each LoRA, by the name that its style gets.
        default_style: Style in force where none is given; the first if left out.
        adapter_name: Name of the new adapter.
        options: Further options of `StyleAdapterConfig`, such as `prompt`, `dropout`, `task_type`.

    Returns:
        The model with the adapter, ready to mix, to train further or to save; its factors are fp32 at least.

    Raises:
        ValueError: A LoRA that is more than dW = s * B A (DoRA, biases, a changed backbone, ...), that does not fit
            the model, or whose whole modules differ from another's. The model is left as it is then.

    Example:
        >>> model = from_loras(backbone, {"kjv": "out/kjv", "modern": "me/modern-lora"})  # doctest: +SKIP
        >>> model(**inputs, styles={"kjv": 0.5, "modern": 0.5})  # doctest: +SKIP
    """
    check_arguments(model, loras, options)
    read = [read_lora(name, source) for name, source in loras.items()]
    modules = dict(model.named_modules())
    for lora in read:
        check_fit(lora, modules)
        check_copies(lora, model)
    whole = shared_whole(read)
    if "task_type" not in options:
        options["task_type"] = shared_task(read)
    warn_of_other_bases(read, str(getattr(model, "name_or_path", "") or ""))
    config = StyleAdapterConfig(
        styles=list(loras),
        default_style=default_style,
        modules_to_save=sorted({m for lora in read for m in lora.config.modules_to_save or ()}) or None,
        **options,
        **_places(read, modules),
    )
    tensors = {**_stacked(read, config), **whole}
    # on the meta device at first: what is stacked becomes the layers' own storage, and nothing is drawn at random
    adapted = get_peft_model(model, config, adapter_name=adapter_name, low_cpu_mem_usage=True)
    set_peft_model_state_dict(adapted, tensors, adapter_name=adapter_name, low_cpu_mem_usage=True)
    return adapted


def _places(loras: Sequence[Lora], modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Where the adapter goes, with which ranks, and alpha = r throughout."""
    ranks: dict[str, int] = {}
    for lora in loras:
        for name, (a, _) in lora.factors.items():
            ranks[name] = ranks.get(name, 0) + a.shape[0]
    usual = max(set(ranks.values()), key=list(ranks.values()).count)
    ends: dict[str, set[int]] = {}
    for name, rank in ranks.items():
        ends.setdefault(_end(name), set()).add(rank)
    alike = {end for end, found in ends.items() if len(found) == 1}  # one pattern for all of them
    other = {_end(n) if _end(n) in alike else f"^{re.escape(n)}": rank for n, rank in ranks.items() if rank != usual}
    return {
        "target_modules": exact_targets(list(ranks), modules),
        "r": usual,
        "alpha": float(usual),
        "rank_pattern": other,
        "alpha_pattern": {name: float(rank) for name, rank in other.items()},
    }


def _end(name: str) -> str:
    """The last part of a module's name."""
    return name.rpartition(".")[2]


def _stacked(loras: Sequence[Lora], config: StyleAdapterConfig) -> dict[str, Tensor]:
    """The adapter's tensors, as its file would hold them."""
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for lora in loras for name in lora.factors):
        pairs = [lora.factors.get(name) for lora in loras]
        a = torch.cat([pair[0] for pair in pairs if pair is not None])
        b = torch.cat([pair[1] for pair in pairs if pair is not None], dim=1)
        blocks = [pair[0].new_ones(1, pair[0].shape[0]) if pair else a.new_ones(1, 0) for pair in pairs]
        parts = {"A": a, "B": b, "gate": torch.block_diag(*blocks)}  # [n_styles, r]
        for table, rows in (("feature", config.style_dim), ("noise", config.noise_dim)):
            if rows:
                parts[table] = a.new_zeros(rows, a.shape[0])
        tensors |= {f"{ROOT}{name}.{PREFIX}{part}.weight": tensor for part, tensor in parts.items()}
    return tensors
