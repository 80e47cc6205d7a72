"""Time at inference: many styles in one batch against PEFT's LoRA with `adapter_names`, and the bare backbone.

    python benchmarks/inference_time.py            # minutes; writes benchmarks/results/inference_time.json
    python benchmarks/inference_time.py --quick    # fewer rounds of 4 layers, nothing written

One process, the body of SmolLM2-135M's shape with random weights, all linear layers adapted, r = 16, 16 rows in 8
styles, or LoRAs; all run in turn, in an order that turns every round, and medians are shown. Prefill reads 48 tokens a
row, decode one more after them. "Overhead" is the time over the bare backbone's own. "Merged" is one style merged into
the weights and unloaded. The adapter of 100,000 styles has its rows asked at random.
"""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from cells import table
from peft import LoraConfig, get_peft_model
from timings import backbone, medians, run_precisions
from torch import nn
from transformers import DynamicCache

from style_adapter import StyleAdapterConfig

ROWS, SEQ, RANK, STYLES, MANY = 16, 48, 16, 8, 100_000


def adapted(layers: int, dtype: torch.dtype, count: int) -> nn.Module:
    """The backbone with a style adapter of `count` styles."""
    config = StyleAdapterConfig(styles=[f"s{i}" for i in range(count)], r=RANK, target_modules="all-linear")
    return get_peft_model(backbone(dtype, layers), config).eval()


def loras(layers: int, dtype: torch.dtype) -> nn.Module:
    """The backbone with eight LoRAs."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear")
    model = get_peft_model(backbone(dtype, layers), config, adapter_name="s0")
    for number in range(1, STYLES):
        model.add_adapter(f"s{number}", config)
    return model.eval()


def runs(layers: int, dtype: torch.dtype) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """Each model, with what its call takes beside the tokens."""
    names = [f"s{i % STYLES}" for i in range(ROWS)]
    far = [f"s{number}" for number in random.Random(0).sample(range(MANY), STYLES)] * (ROWS // STYLES)
    merged = adapted(layers, dtype, 2)
    return {
        "backbone": (backbone(dtype, layers).eval(), {}),
        "LoRA, adapter_names": (loras(layers, dtype), {"adapter_names": names}),
        "style_adapter": (adapted(layers, dtype, STYLES), {"styles": names}),
        "style_adapter, 2 styles": (adapted(layers, dtype, 2), {"styles": ["s0", "s1"] * (ROWS // 2)}),
        "style_adapter, 100,000 styles": (adapted(layers, dtype, MANY), {"styles": far}),
        "merged": (merged.merge_and_unload(), {}),
    }


def prefill(model: nn.Module, options: Mapping[str, Any], tokens: torch.Tensor) -> None:
    """Reads the prompts."""
    model(input_ids=tokens, use_cache=False, logits_to_keep=1, **options)


def decode(model: nn.Module, options: Mapping[str, Any], tokens: torch.Tensor, cache: DynamicCache) -> None:
    """Reads one token more, and forgets it."""
    model(input_ids=tokens[:, -1:], past_key_values=cache, use_cache=True, **options)
    cache.crop(-1)


@torch.no_grad()
def measure(dtype: torch.dtype, rounds: int, layers: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of both kinds of reading, by model."""
    tokens = torch.randint(0, 512, (ROWS, SEQ))
    found: dict[str, dict[str, float]] = {}
    ways: dict[str, dict[str, Callable[[], None]]] = {"prefill": {}, "decode": {}}
    for name, (model, options) in runs(layers, dtype).items():
        cache = DynamicCache(config=model.config if hasattr(model, "config") else None)
        model(input_ids=tokens, past_key_values=cache, use_cache=True, **options)
        ways["prefill"][name] = partial(prefill, model, options, tokens)
        ways["decode"][name] = partial(decode, model, options, tokens, cache)
        found[name] = {}
    for kind, calls in ways.items():
        count = rounds if kind == "prefill" else 4 * rounds
        for name, seconds in medians(calls, count).items():
            found[name][f"{kind}_ms"] = 1000 * seconds
    return found


def report(found: Mapping[str, Any]) -> str:
    """The table: whole times over the backbone's, and overheads over LoRA's."""
    kinds = ("prefill", "decode")
    head = (
        "precision, model",
        *(f"{kind}{text}" for kind in kinds for text in (", ms", " / backbone", ", overhead / LoRA")),
    )
    rows = []
    for precision, models in found.items():
        bare, lora = models["backbone"], models["LoRA, adapter_names"]
        for name, row in models.items():
            cells = []
            for key in (f"{kind}_ms" for kind in kinds):
                over = (row[key] - bare[key]) / (lora[key] - bare[key])
                cells += [f"{row[key]:.1f}", f"{row[key] / bare[key]:.2f}", f"{over:.2f}"]
            rows.append((f"{precision}, {name}", *cells))
    return table([head, *rows])


if __name__ == "__main__":
    run_precisions("inference_time", __doc__, measure, report, rows=ROWS, seq=SEQ, r=RANK)
