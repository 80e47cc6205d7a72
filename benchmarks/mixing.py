"""How exact mixtures of LoRAs are: PEFT's `add_weighted_adapter` against one style adapter made by `from_loras`.

    python benchmarks/mixing.py                    # a tiny Llama, seconds; writes benchmarks/results/mixing.json
    python benchmarks/mixing.py --backbone FOLDER  # a real backbone; nothing written

Three random LoRAs of rank 8 on all linear layers are mixed by 0.5, 0.3 and 0.2, and the mixture is mixed again, half
and half, with the first one. The error is ||dW - sum_k w_k dW_k|| / ||sum_k w_k dW_k||, Frobenius, over all modules.
A file is what each way saves for its mixture; ours holds every mixture and all the LoRAs at once.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from cells import RESULTS, keep, table
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from style_adapter import from_loras

RANK, NAMES, WEIGHTS = 8, ["a", "b", "c"], [0.5, 0.3, 0.2]
WAYS = ["linear", "svd", "cat"]  # PEFT's combination_type
Deltas = dict[str, Tensor]
Row = dict[str, float]


def load(folder: str | None) -> PreTrainedModel:
    if folder:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "vocab_size": 256}
    return LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **sizes))


def random_loras(folder: str | None, out: Path) -> PeftModel:
    """One model with the three LoRAs in PEFT, and a file of each."""
    model = None
    for name in NAMES:
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", init_lora_weights=False)
        if model is None:
            model = get_peft_model(load(folder), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    model.save_pretrained(out)
    return model


def deltas(model: PeftModel, adapter: str) -> Deltas:
    """dW of each adapted module, in the style in force where it is ours."""
    with torch.no_grad():
        layers = {n: m for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)}
        return {name: layer.get_delta_weight(adapter) for name, layer in layers.items()}


def mixed(parts: list[Deltas], weights: list[float]) -> Deltas:
    """sum_k w_k dW_k, by hand."""
    return {name: sum(w * part[name] for w, part in zip(weights, parts, strict=True)) for name in parts[0]}


def error(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    off = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    return math.sqrt(off / sum(float(delta.square().sum()) for delta in wanted.values()))


def file_kib(folder: Path) -> float:
    return (folder / "adapter_model.safetensors").stat().st_size / 1024


def peft_row(model: PeftModel, way: str, once: Deltas, twice: Deltas, out: Path) -> Row:
    """PEFT's mixture, and the mixture of that with the first LoRA."""
    start = time.perf_counter()
    model.add_weighted_adapter(NAMES, WEIGHTS, f"{way}_once", combination_type=way)
    row = {"ms": 1000 * (time.perf_counter() - start)}
    pair = [f"{way}_once", NAMES[0]]
    model.add_weighted_adapter(pair, [0.5, 0.5], f"{way}_twice", combination_type=way)
    for turn, wanted in (("once", once), ("twice", twice)):
        name = f"{way}_{turn}"
        model.save_pretrained(out, selected_adapters=[name])
        row |= {f"error_{turn}": error(deltas(model, name), wanted), f"rank_{turn}": model.peft_config[name].r}
        row[f"kib_{turn}"] = file_kib(out / name)
    return row


def own_row(model: PeftModel, once: Deltas, twice: Deltas, out: Path) -> Row:
    """The same two mixtures as styles of one adapter."""
    bank = model.base_model.styles
    start = time.perf_counter()
    style = sum((w * bank[name] for name, w in zip(NAMES[1:], WEIGHTS[1:], strict=True)), WEIGHTS[0] * bank[NAMES[0]])
    row: Row = {"ms": 1000 * (time.perf_counter() - start)}
    model.save_pretrained(out)
    for turn, chosen, wanted in (("once", style, once), ("twice", 0.5 * style + 0.5 * bank[NAMES[0]], twice)):
        with model.base_model.styled(chosen):
            found = deltas(model, "default")
        row |= {f"error_{turn}": error(found, wanted), f"rank_{turn}": len(NAMES) * RANK, f"kib_{turn}": file_kib(out)}
    return row


def report(found: Mapping[str, Row]) -> str:
    """The table: of the mixture, and of the mixture mixed again."""
    head = ("mixture by", "ms", "error", "error again", "rank", "rank again", "KiB", "KiB again")
    rows = []
    for way, row in found.items():
        turns = [(row[f"error_{turn}"], row[f"rank_{turn}"], row[f"kib_{turn}"]) for turn in ("once", "twice")]
        forms = ("{:.1e}", "{}", "{:.0f}")
        cells = [
            form.format(number) for form, pair in zip(forms, zip(*turns, strict=True), strict=True) for number in pair
        ]
        rows.append((way, f"{row['ms']:.2f}", *cells))
    return table([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", help="Folder or hub id of a causal backbone; results are not written then")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        loras = random_loras(options.backbone, out)
        parts = [deltas(loras, name) for name in NAMES]
        once = mixed(parts, WEIGHTS)
        twice = mixed([once, parts[0]], [0.5, 0.5])
        rows = {f"peft {way}": peft_row(loras, way, once, twice, out) for way in WAYS}
        ours = from_loras(load(options.backbone), {name: out / name for name in NAMES})
        rows["style_adapter"] = own_row(ours, once, twice, out / "ours")
    print(report(rows))
    if not options.backbone:
        setting = {"r": RANK, "loras": len(NAMES), "weights": WEIGHTS, "backbone": "Llama, 4 blocks of 64"}
        keep(RESULTS / "mixing.json", rows, setting=setting)


if __name__ == "__main__":
    main()
