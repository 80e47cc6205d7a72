"""What the timings of a step share: the backbone, the order in which ways are run, and how the results are kept."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from cells import RESULTS, keep
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM


def backbone(dtype: torch.dtype, layers: int = 30) -> LlamaForCausalLM:
    """The body of SmolLM2-135M's shape, frozen, with the same random weights each time and few words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=512,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).requires_grad_(False)


def turned(names: Sequence[str], turn: int) -> list[str]:
    """The names in the order of one round: each round begins with another one.

    >>> turned(["a", "b", "c"], 4)
    ['b', 'c', 'a']
    """
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def medians(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, all run in turn, after one each that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for turn in range(rounds):
        for name in turned([*calls], turn):
            begun = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in times.items()}


def kept_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that one forward keeps for backward, each storage once, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept[address] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    loss.backward()
    return found


def run_precisions(
    name: str,
    doc: str | None,
    measure: Callable[[torch.dtype, int, int], Mapping[str, Any]],
    report: Callable[[Mapping[str, Any]], str],
    **setting: Any,
) -> None:
    """A timing from the terminal, in fp32 and bf16: prints the table, and keeps it unless `--quick` is given."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 rounds of 4 layers, results not written")
    options = parser.parse_args()
    rounds, layers = (5, 4) if options.quick else (15, 30)
    kinds = (torch.float32, torch.bfloat16)
    found = {str(dtype).removeprefix("torch."): measure(dtype, rounds, layers) for dtype in kinds}
    print(report(found))
    if not options.quick:
        keep(RESULTS / f"{name}.json", found, setting=setting | {"layers": layers, "rounds": rounds})
