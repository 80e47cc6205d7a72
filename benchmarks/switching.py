"""Switching at inference: from one style of an adapter to another, against PEFT's switch from one LoRA to another.

    python benchmarks/switching.py    # half a minute; writes benchmarks/results/switching.json

One process, the body of SmolLM2-135M's shape, all linear layers adapted, r = 16: a style adapter of 8 styles, and 8
LoRAs of PEFT's in one model; all run in turn, 60 rounds of 20 switches after one that is not counted
(just one, where it takes milliseconds). To switch is to enter `model.styled(style)` and to leave it, or PEFT's
`set_adapter`. A further style of PEFT's is loaded from disk and deleted again; ours are all there. Medians of the
rounds' means, in microseconds.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping

import torch
from cells import RESULTS, keep, table
from peft import LoraConfig, PeftModel, get_peft_model
from timings import backbone, turned

from style_adapter import StyleAdapterConfig

COUNT, RANK, ROUNDS = 8, 16, 60
SLOW = {"PEFT: set_adapter": 1, "PEFT: load_adapter and delete it": 10}  # one switch in so many rounds


def styled(model: PeftModel, style: object) -> None:
    """Enters a style and leaves it."""
    with model.styled(style):
        pass


def switches() -> dict[str, Callable[[int], None]]:
    """Each way to switch, by the number of the round."""
    names = [f"s{i}" for i in range(COUNT)]
    ours = get_peft_model(
        backbone(torch.bfloat16),
        StyleAdapterConfig(styles=names, r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    ).eval()
    lora = LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = get_peft_model(backbone(torch.bfloat16), lora, adapter_name=names[0])
    for name in names[1:]:
        theirs.add_adapter(name, lora)
    theirs.eval()
    folder = tempfile.mkdtemp()
    theirs.save_pretrained(folder, selected_adapters=[names[1]])

    def load(turn: int) -> None:
        theirs.load_adapter(f"{folder}/{names[1]}", f"new{turn}")
        theirs.delete_adapter(f"new{turn}")

    mixtures = [0.7 * ours.styles[a] + 0.3 * ours.styles[b] for a, b in zip(names, names[1:] + names[:1], strict=True)]
    return {
        "a style, by name": lambda turn: styled(ours, names[turn % COUNT]),
        "a mixture, made before": lambda turn: styled(ours, mixtures[turn % COUNT]),
        "a mixture in words": lambda turn: styled(ours, f"0.7*{names[turn % COUNT]} + 0.3*{names[(turn + 1) % COUNT]}"),
        "16 rows in 8 styles": lambda turn: styled(ours, names * 2),
        "PEFT: set_adapter": lambda turn: theirs.set_adapter(names[turn % COUNT]),
        "PEFT: load_adapter and delete it": load,
    }


def measure() -> dict[str, float]:
    """Median microseconds of each."""
    ways = switches()
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        for turn in range(ROUNDS):
            for name in turned([*ways], turn):
                if turn % SLOW.get(name, 1):
                    continue
                count = 1 if name in SLOW else 20
                if count > 1:
                    ways[name](turn)  # what ran before has emptied the caches; a switch is none of its affairs
                begun = time.perf_counter()
                for number in range(count):
                    ways[name](turn + number)
                times[name].append((time.perf_counter() - begun) / count)
    return {name: 1e6 * statistics.median(each) for name, each in times.items()}


def report(found: Mapping[str, float]) -> str:
    """The table, and each as a share of PEFT's switch."""
    peft = found["PEFT: set_adapter"]
    rows = [(name, f"{value:,.0f}", f"{value / peft:.4f}") for name, value in found.items()]
    return table([("switch to", "microseconds", "of set_adapter"), *rows])


def main() -> None:
    found = measure()
    print(report(found))
    keep(RESULTS / "switching.json", found, setting={"styles": COUNT, "r": RANK, "rounds": ROUNDS})


if __name__ == "__main__":
    main()
