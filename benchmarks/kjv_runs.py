"""Short runs on modern English <-> King James English for tables: trained for so long, judged on Acts."""

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import get_peft_model
from transformers import TrainerCallback

from style_adapter import StyleAdapterConfig, StyleJudge, StyleTrainer, StyleTrainingArguments, write
from style_adapter.metrics import copy_rate, distinct_n, repetition_rate

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from kjv_data import load_verse_pairs, transfer_dataset
from smollm2 import load_smollm2

PROMPT = "<|im_start|>user\nRewrite: {source}<|im_end|>\n<|im_start|>assistant\n"
DEV_VERSES = 100
UNPAIRED: dict[str, Any] = {  # as the preset has it
    "marker_threshold": 5.0, "w_adv": 0.5, "w_cls": 0.5, "discriminator_blocks": 8,
    "discriminator_learning_rate": 1e-3,
}  # fmt: skip


class StopAfter(TrainerCallback):
    """Ends training after so many seconds of processor time in its steps; evaluations do not count.

    What else runs on the machine takes no time from a run then, so that two runs may go side by side.
    """

    def __init__(self, seconds: float) -> None:
        self.left, self.begun = seconds, 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begun = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.left -= time.process_time() - self.begun
        control.should_training_stop = control.should_training_stop or self.left <= 0


@cache
def verses() -> dict[str, Any]:
    """Training rows paired and unpaired, development rows, and the judge, which knows the training books."""
    pairs, chosen = load_verse_pairs(), random.Random(0)
    paired = transfer_dataset(pairs["train"])
    # One side of each verse: no text of the training data has its counterpart there.
    sides = [chosen.choice([(pair.modern, "modern"), (pair.kjv, "kjv")]) for pair in pairs["train"]]
    unpaired = datasets.Dataset.from_list([{"text": text, "style": style} for text, style in sides])
    dev = transfer_dataset(chosen.sample(pairs["dev"], DEV_VERSES))
    return {
        "paired": paired,
        "unpaired": unpaired,
        "dev": dev,
        "judge": StyleJudge.fit(paired["target"], paired["style"]),
    }


def trained(kind: str, seconds: float, seed: int, **options: Any) -> StyleTrainer:
    """A trainer after so many seconds on one core: `StopAfter` would count two for one."""
    torch.set_num_threads(1)
    trainer = started(kind, seed, callbacks=[StopAfter(seconds)], **options)
    trainer.train()
    return trainer


def started(
    kind: str, seed: int, *, noise_dim: int = 0, callbacks: Sequence[TrainerCallback] = (), **options: Any
) -> StyleTrainer:
    """A trainer of an adapter of rank 16 on SmolLM2-135M, on "paired" or "unpaired" verses."""
    torch.manual_seed(seed)
    backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
    config = StyleAdapterConfig(
        styles=["modern", "kjv"], r=16, alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", prompt=PROMPT,
        noise_dim=noise_dim,
    )  # fmt: skip
    defaults: dict[str, Any] = {
        "max_steps": 10_000,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 10,
        "adversary_start": 20,
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length",
        "save_strategy": "no",
        "logging_steps": 10.0,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "eval_samples": 2 * DEV_VERSES,
        "watch_steps": 0,
        "seed": seed,
    }
    data = verses()
    return StyleTrainer(
        model=get_peft_model(backbone, config),
        args=StyleTrainingArguments(tempfile.mkdtemp(), **defaults | options),
        train_dataset=data[kind],
        eval_dataset=data["dev"],
        processing_class=tokenizer,
        judge=data["judge"],
        callbacks=[*callbacks],
    )


def numbers(trainer: StyleTrainer) -> dict[str, Any]:
    """The development metrics of greedy rewrites, the steps done, the first and the last log line."""
    logs = [line for line in trainer.state.log_history if "loss" in line]
    texts = trainer.eval_task.predict(trainer.eval_rows, trainer.setting)
    ends = {"first_log": logs[0], "last_log": logs[-1]} if logs else {}
    return {"metrics": metrics_of(trainer, texts), "steps": trainer.state.global_step, **ends}


def sampled(trainer: StyleTrainer, temperature: float, seed: int) -> dict[str, float]:
    """The development metrics of rewrites that are drawn, not the likeliest."""
    rows = trainer.eval_rows
    texts = write(
        trainer.style_model, trainer.processing_class, rows["source"], rows["style"],
        temperature=temperature, max_new_tokens=64, seed=seed,
    )  # fmt: skip
    return metrics_of(trainer, [text for (text,) in texts])


def metrics_of(trainer: StyleTrainer, texts: Sequence[str]) -> dict[str, float]:
    """What the task says of the texts, and how varied they are, by direction."""
    rows = trainer.eval_rows
    found = trainer.eval_task.score(list(texts), rows, trainer.setting)
    for style in trainer.bank:
        own = [
            (text, source) for text, source, s in zip(texts, rows["source"], rows["style"], strict=True) if s == style
        ]
        outputs, sources = [text for text, _ in own], [source for _, source in own]
        found |= {f"{style}_distinct_2": distinct_n(outputs, 2), f"{style}_copy_rate": copy_rate(outputs, sources)}
        found[f"{style}_repetition_rate"] = repetition_rate(outputs)
    return found


def mean_of(metrics: dict[str, float], name: str, directions: Sequence[str] = ("modern", "kjv")) -> float:
    """The mean of one metric over both directions."""
    return sum(metrics[f"{direction}_{name}"] for direction in directions) / len(directions)
