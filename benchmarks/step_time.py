"""Time and memory of a training step: style adapter against PEFT's LoRA of the same rank, and the bare backbone.

    python benchmarks/step_time.py            # about 3 minutes on 2 cores; writes benchmarks/results/step_time.json
    python benchmarks/step_time.py --quick    # fewer rounds, nothing written

One process, one backbone, the three run in turn, in an order that turns every round. A step is forward and backward of
16 x 48 tokens to the input, all linear layers adapted, r = 16, two styles in the batch for ours. "Overhead" is the
time over the bare backbone's own forward and backward. Memory is what autograd keeps for backward, each storage once,
without the weights.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from cells import table
from peft import LoraConfig, get_peft_model
from timings import backbone, kept_bytes, medians, run_precisions
from torch import Tensor, nn

from style_adapter import StyleAdapterConfig

BATCH, SEQ, RANK = 16, 48, 16
STYLES = ["modern", "kjv"] * (BATCH // 2)


def build(method: str, dtype: torch.dtype, layers: int) -> nn.Module:
    """The backbone, adapted by `method`."""
    model = backbone(dtype, layers)
    if method == "lora":
        return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
    if method == "style_adapter":
        styles = StyleAdapterConfig(styles=["modern", "kjv"], r=RANK, alpha=RANK, target_modules="all-linear")
        return get_peft_model(model, styles)
    return model


def loss_of(model: nn.Module, method: str, embeddings: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of a batch."""
    extra = {"styles": STYLES} if method == "style_adapter" else {}
    with torch.autocast("cpu", torch.bfloat16, enabled=embeddings.dtype == torch.bfloat16):
        logits = model(inputs_embeds=embeddings, use_cache=False, **extra).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


def step(model: nn.Module, method: str, embeddings: Tensor, labels: Tensor) -> None:
    """One forward and backward to the input embeddings, so that the bare backbone has a backward too."""
    loss_of(model, method, embeddings, labels).backward()
    model.zero_grad()
    embeddings.grad = None


def measure(dtype: torch.dtype, rounds: int, layers: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of a step, and what is kept for its backward, by method."""
    embeddings = torch.randn(BATCH, SEQ, 576, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 512, (BATCH, SEQ))
    given = {m: (build(m, dtype, layers), m, embeddings, labels) for m in ("backbone", "lora", "style_adapter")}
    memory = {method: kept_bytes(args[0], partial(loss_of, *args)) for method, args in given.items()}
    times = medians({method: partial(step, *args) for method, args in given.items()}, rounds)
    return {
        method: {
            "ms": 1000 * seconds,
            "saved_mib": memory[method] / 2**20,
            "overhead_ms": 1000 * (seconds - times["backbone"]),
        }
        for method, seconds in times.items()
    }


def report(found: Mapping[str, Any]) -> str:
    """The table, with the times and the memory over LoRA's."""
    head = ("precision, method", "ms", "overhead, ms", "of LoRA's", "kept, MiB", "of LoRA's")
    rows = []
    for precision, methods in found.items():
        for method, row in methods.items():
            of_lora = {name: f"{row[name] / methods['lora'][name]:.2f}" for name in ("overhead_ms", "saved_mib")}
            cells = [f"{row['ms']:.1f}", f"{row['overhead_ms']:.1f}", of_lora["overhead_ms"]]
            rows.append((f"{precision}, {method}", *cells, f"{row['saved_mib']:.1f}", of_lora["saved_mib"]))
    return table([head, *rows])


if __name__ == "__main__":
    run_precisions("step_time", __doc__, measure, report, batch=BATCH, seq=SEQ, r=RANK)
