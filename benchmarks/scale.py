"""Scale: what `style-adapter plan` says of big backbones, and a real run held against it.

    python benchmarks/scale.py            # some minutes; writes benchmarks/results/scale.json
    python benchmarks/scale.py --quick    # the smallest backbone and the real run, nothing written

Shapes of Llama, r = 16 in all linear layers, bf16, 8 rows of 256 + 256 tokens a GPU and step; GPUs of 80 GiB. Of the
ways to hold and spread the backbone the first that fits is shown, as `plan` advises it. A million styles are the same
backbone with that many rows in each gate table. The real run trains SmolLM2-135M's shape on this machine, 8 rows of
128 + 128 tokens, in its own process: its resident memory at its peak, over that before the model was made, a small
one having been trained already for all code to be loaded.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
from cells import RESULTS, keep, table
from peft import get_peft_model
from runs import NO_GAME, TRAINING, backbone_folder
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from style_adapter import StyleAdapterConfig, StyleTrainer, StyleTrainingArguments
from style_adapter.planning import GIB, Model, Way, Work, cost, costs_of, first_fitting, survey

SHAPES = {  # width, width inside, blocks, heads, their keys and values, words
    "7B": (4096, 11008, 32, 32, 32, 32000),
    "70B": (8192, 28672, 80, 64, 8, 128_256),
    "405B": (16384, 53248, 126, 128, 8, 128_256),
}
SMOLLM2 = (576, 1536, 30, 9, 3, 49152)
GPUS, MEMORY, MANY = (1, 8, 64, 1024), 80.0, 1_000_000
REAL = Work(batch=8, prompt=128, target=128)


def folder_of(shape: tuple[int, ...]) -> str:
    """A folder with the configuration of a shape."""
    names = "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"
    options: dict[str, Any] = dict(zip((*names, "vocab_size"), shape, strict=True))
    folder = tempfile.mkdtemp()
    LlamaConfig(**options, tie_word_embeddings=shape == SMOLLM2).save_pretrained(folder)
    return folder


def advised(model: Model, work: Work, gpus: int) -> dict[str, Any]:
    """The first way that fits, and what it costs; the least one where none does."""
    costs = costs_of(model, work, gpus)
    fitting = first_fitting(costs, MEMORY)
    way = fitting or min(costs, key=lambda way: costs[way].total)
    found = costs[way]
    parts = {"weights": found.weights, "trained": found.trained, "step": found.step, "in_all": found.total}
    return {"way": str(way), "fits": fitting is not None} | {
        name: value / GIB for name, value in (parts | {"sent": found.traffic}).items()
    }


def planned(names: list[str]) -> dict[str, dict[str, Any]]:
    """What is advised, by backbone, styles and GPUs."""
    found, work = {}, Work()
    for name in names:
        few = survey(folder_of(SHAPES[name]), work)
        many = replace(few, trained=few.trained + (MANY - work.styles) * few.style)
        for styles, model in (("2 styles", few), ("1e6 styles", many)):
            for gpus in GPUS:
                found[f"{name}, {styles}, {gpus:,} GPUs"] = advised(model, work, gpus)
    return found


def resident(field: str) -> int:
    """Bytes of this process in memory: now (VmRSS), or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def train(config: LlamaConfig, tokenizer: Any, steps: int) -> None:
    """Trains an adapter of a fresh model, its peak counted from the first step on."""
    backbone = LlamaForCausalLM(config).to(REAL.dtype)
    styles = StyleAdapterConfig(
        styles=["a", "b"], r=REAL.r, target_modules="all-linear", task_type="CAUSAL_LM", prompt="{source}"
    )
    rows = [
        {"source": " the" * (REAL.prompt - number % 4), "target": " a" * (REAL.target - 1), "style": "b"}
        for number in range(steps * REAL.batch)
    ]
    options = TRAINING | NO_GAME | {"max_steps": steps, "adversary_fraction": 0.0}
    trainer = StyleTrainer(
        model=get_peft_model(backbone, styles),
        args=StyleTrainingArguments(tempfile.mkdtemp(), **options),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the weights were made in fp32: forget that peak
    trainer.train()


def run_for_real(folder: str) -> None:
    """Trains for three steps, and prints the most memory that it took."""
    tokenizer, config = AutoTokenizer.from_pretrained(backbone_folder()), LlamaConfig.from_pretrained(folder)
    small = LlamaConfig(**config.to_dict() | {"num_hidden_layers": 1, "vocab_size": len(tokenizer), "hidden_size": 72})
    train(small, tokenizer, 1)
    gc.collect()
    before = resident("VmRSS")
    train(config, tokenizer, 3)
    print(json.dumps(resident("VmHWM") - before))


def measured() -> dict[str, float]:
    """GiB as planned and as a run took them."""
    folder = folder_of(SMOLLM2)
    command = [sys.executable, __file__, "--run", folder]
    # Blocks of 64 KiB and more go back to the system at once: what glibc keeps for later is no need of the step's.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    plan = cost(survey(folder, REAL), REAL, Way())
    return {"planned": plan.total / GIB, "measured": int(run.stdout.splitlines()[-1]) / GIB}


def report(found: Mapping[str, Any]) -> str:
    """The table of plans, and the real run."""
    keys = ("weights", "trained", "step", "in_all", "sent")
    rows = [
        (name, row["way"] if row["fits"] else "none fits", *(f"{row[key]:,.2f}" for key in keys))
        for name, row in found["plans"].items()
    ]
    head = ("backbone", "way", "frozen, GiB", "trained", "step", "in all", "sent a step")
    real = found["real"]
    share = real["planned"] / real["measured"]
    told = f"SmolLM2-135M's shape: planned {real['planned']:.2f} GiB, taken {real['measured']:.2f} GiB ({share:.2f} x)."
    return f"{table([head, *rows])}\n\n{told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="7B alone, results not written")
    parser.add_argument("--run", metavar="FOLDER", help="the real run of a configuration, in this process")
    options = parser.parse_args()
    if options.run:
        run_for_real(options.run)
        return
    found = {"plans": planned(["7B"] if options.quick else [*SHAPES]), "real": measured()}
    print(report(found))
    if not options.quick:
        keep(RESULTS / "scale.json", found, setting={"gib": MEMORY, "batch": 8, "seq": 512, "r": 16})


if __name__ == "__main__":
    main()
