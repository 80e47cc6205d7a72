"""Train a style adapter against a discriminator, then switch it: modern English <-> King James, on two CPU cores.

    make quickstart                      # sets everything up and runs this
    python examples/quickstart.py        # in an environment that has it all

Everything stays under `runs/quickstart`: the adapter, its card, `metrics.json`, plots.
"""

import argparse
import json
import random
import resource
import time
from dataclasses import asdict
from pathlib import Path

import torch
from kjv_data import VersePair, load_verse_pairs, transfer_dataset
from peft import get_peft_model
from smollm2 import backbone_folder, load_smollm2
from transformers import set_seed

from style_adapter import (
    StyleAdapterConfig,
    StyleJudge,
    StyleTrainer,
    StyleTrainingArguments,
    StyleTransferEvaluator,
    plot_gates,
    write_report,
)

PROMPT = "<|im_start|>user\nRewrite: {source}<|im_end|>\n<|im_start|>assistant\n"
DEV_VERSES, SAMPLES = 32, 6


def main() -> None:
    options = parse_options()
    started = time.perf_counter()
    set_seed(options.seed)
    pairs = load_verse_pairs()
    chosen = random.Random(options.seed)
    train = transfer_dataset(pairs["train"])
    dev = transfer_dataset(chosen.sample(pairs["dev"], DEV_VERSES))
    test = transfer_dataset(chosen.sample(pairs["test"], options.test_verses))

    backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
    config = StyleAdapterConfig(
        styles=["modern", "kjv"], r=options.rank, alpha=2 * options.rank, target_modules="all-linear",
        task_type="CAUSAL_LM", prompt=PROMPT,
    )  # fmt: skip
    model = get_peft_model(backbone, config)
    args = training_arguments(options)
    # The judge that picks the checkpoint knows the Old Testament alone, the judge of the last table all of training.
    matthew = next(i for i, pair in enumerate(pairs["train"]) if pair.book == "Matthew")
    trainer = StyleTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=dev,
        processing_class=tokenizer,
        judge=fit_judge(pairs["train"][:matthew]),
    )
    print_shares(trainer)
    trainer.train()
    trained = time.perf_counter()
    trainer.save_model()

    found = StyleTransferEvaluator([fit_judge(pairs["train"])]).evaluate(model, tokenizer, test)
    folder = Path(args.output_dir)
    found.save(folder)
    write_report(trainer, recipe=recipe(args, config), numbers=found.table())
    plot_gates(model, folder / "gates.png")
    print(f"\n{options.test_verses} verses of the Gospel of John, never seen, in both directions:\n\n{found.table()}\n")
    for row in range(SAMPLES):
        print(f"  to {test['style'][row]}:  {test['source'][row]}\n   adapter:  {found.outputs['after'][row]}")
        print(f"     verse:  {test['target'][row]}\n")
    minutes = {"training": (trained - started) / 60, "all": (time.perf_counter() - started) / 60}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    print("Minutes: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()), f"; peak {memory:.1f} GiB")
    print_next(folder)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/quickstart", help="folder for everything (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapter (default: %(default)s)")
    parser.add_argument("--test-verses", type=int, default=200, help="verses of the last table (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of data order and weights (default: %(default)s)")
    return parser.parse_args()


def training_arguments(options: argparse.Namespace) -> StyleTrainingArguments:
    return StyleTrainingArguments(
        output_dir=options.output,
        max_steps=options.steps,
        per_device_train_batch_size=8,
        learning_rate=1.5e-3,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        novel_token_weight=2.0,
        adversary_start=options.steps // 2,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        eval_strategy="steps",
        eval_steps=max(options.steps // 3, 1),
        eval_samples=64,
        per_device_eval_batch_size=32,
        save_strategy="steps",
        save_steps=max(options.steps // 3, 1),
        save_total_limit=1,
        load_best_model_at_end=True,
        early_stopping_patience=2,
        logging_steps=25,
        seed=options.seed,
        dataloader_pin_memory=False,
    )


def fit_judge(pairs: list[VersePair]) -> StyleJudge:
    rows = transfer_dataset(pairs)
    return StyleJudge.fit(rows["target"], rows["style"])


def print_shares(trainer: StyleTrainer) -> None:
    for name, (count, share) in trainer.shares().items():
        print(f"{name}: {count:,} trained parameters, {share:.2%} of the backbone")


def recipe(args: StyleTrainingArguments, config: StyleAdapterConfig) -> dict[str, object]:
    defaults = StyleTrainingArguments(output_dir=args.output_dir)
    changed = {k: v for k, v in asdict(args).items() if v != getattr(defaults, k, v)}
    return json.loads(
        json.dumps({"styles": config.styles, "r": config.r, "alpha": config.alpha, **changed}, default=str)
    )


def print_next(folder: Path) -> None:
    base = f"--adapter {folder} --base {backbone_folder()}"
    print("\nNext, in this environment (. .venv/bin/activate):")
    print(f'  a line of your own    style-adapter transfer {base} --style kjv "You have nothing to fear."')
    print(f'  another style         style-adapter transfer {base} --style modern "Fear thou not."')
    print(f"  a plain LoRA          style-adapter export {base} --style kjv {folder}/lora-kjv")


if __name__ == "__main__":
    main()
