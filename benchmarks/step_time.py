"""Time and memory of a training step: style adapter against PEFT's LoRA of the same rank, and the bare backbone.

    python benchmarks/step_time.py            # about 3 minutes on 2 cores; writes benchmarks/results/step_time.json
    python benchmarks/step_time.py --quick    # fewer rounds, nothing written

One process, one backbone, the three run in turn, in an order that turns every round. A step is forward and backward of
16 x 48 tokens to the input, all linear layers adapted, r = 16, two styles in the batch for ours. "Overhead" is the
time over the bare backbone's own forward and backward. Memory is what autograd keeps for backward, each storage once,
without the weights.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from cells import RESULTS, keep, table
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from style_adapter import StyleAdapterConfig

BATCH, SEQ, RANK = 16, 48, 16
STYLES = ["modern", "kjv"] * (BATCH // 2)


def backbone(dtype: torch.dtype, layers: int = 30) -> LlamaForCausalLM:
    """The body of SmolLM2-135M's shape, frozen, with the same random weights each time and few words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=512,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).requires_grad_(False)


def build(method: str, dtype: torch.dtype, layers: int) -> nn.Module:
    """The backbone, adapted by `method`."""
    model = backbone(dtype, layers)
    if method == "lora":
        return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
    if method == "style_adapter":
        styles = StyleAdapterConfig(styles=["modern", "kjv"], r=RANK, alpha=RANK, target_modules="all-linear")
        return get_peft_model(model, styles)
    return model


def step(model: nn.Module, method: str, embeddings: Tensor, labels: Tensor) -> None:
    """One forward and backward to the input embeddings, so that the bare backbone has a backward too."""
    extra = {"styles": STYLES} if method == "style_adapter" else {}
    with torch.autocast("cpu", torch.bfloat16, enabled=embeddings.dtype == torch.bfloat16):
        logits = model(inputs_embeds=embeddings, use_cache=False, **extra).logits
    F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten()).backward()
    model.zero_grad()
    embeddings.grad = None


def saved_bytes(model: nn.Module, method: str, embeddings: Tensor, labels: Tensor) -> int:
    """Bytes that one forward keeps for backward, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        step(model, method, embeddings, labels)
    return sum(kept.values())


def measure(dtype: torch.dtype, rounds: int, layers: int) -> dict[str, dict[str, float]]:
    methods = ["backbone", "lora", "style_adapter"]
    models = {method: build(method, dtype, layers) for method in methods}
    embeddings = torch.randn(BATCH, SEQ, 576, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 512, (BATCH, SEQ))
    memory = {m: saved_bytes(models[m], m, embeddings, labels) for m in methods}  # also the warm-up
    times: dict[str, list[float]] = {method: [] for method in methods}
    for turn in range(rounds):
        for method in methods[turn % 3 :] + methods[: turn % 3]:
            start = time.perf_counter()
            step(models[method], method, embeddings, labels)
            times[method].append(time.perf_counter() - start)
    rows = {m: {"ms": 1000 * statistics.median(times[m]), "saved_mib": memory[m] / 2**20} for m in methods}
    return {m: row | {"overhead_ms": row["ms"] - rows["backbone"]["ms"]} for m, row in rows.items()}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 rounds of 4 layers, results not written")
    options = parser.parse_args()
    rounds, layers = (5, 4) if options.quick else (15, 30)
    kinds = (torch.float32, torch.bfloat16)
    found = {str(dtype).removeprefix("torch."): measure(dtype, rounds, layers) for dtype in kinds}
    print(report(found))
    if not options.quick:
        setting = {"batch": BATCH, "seq": SEQ, "r": RANK, "layers": layers, "rounds": rounds}
        keep(RESULTS / "step_time.json", found, setting=setting)


if __name__ == "__main__":
    main()
