"""Short runs on modern English <-> King James English for tables: trained for so long, judged on Acts."""

import random
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import torch
from runs import StopAfter, metrics_of, style_trainer
from transformers import TrainerCallback

from style_adapter import StyleJudge, StyleTrainer, write
from style_adapter.presets import PRESETS

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from kjv_data import load_verse_pairs, transfer_dataset

STYLES = ("modern", "kjv")
DEV_VERSES = 100
_OF_THE_PRESET = ["marker_threshold", "w_adv", "w_feat", "w_cls", "discriminator_blocks", "discriminator_learning_rate"]
UNPAIRED: dict[str, Any] = {name: PRESETS["unpaired"][name] for name in _OF_THE_PRESET}


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
    defaults: dict[str, Any] = {
        "max_steps": 10_000,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 10,
        "adversary_start": 20,
        "eval_samples": 2 * DEV_VERSES,
    }
    data = verses()
    return style_trainer(
        data[kind],
        STYLES,
        seed=seed,
        config={"noise_dim": noise_dim},
        callbacks=callbacks,
        eval_dataset=data["dev"],
        judge=data["judge"],
        **defaults | options,
    )


def numbers(trainer: StyleTrainer) -> dict[str, Any]:
    """The development metrics of greedy rewrites, the steps done, the first and the last log line."""
    logs = [line for line in trainer.state.log_history if "loss" in line]
    texts = trainer.eval_task.predict(trainer.eval_rows, trainer.setting)
    ends = {"first_log": logs[0], "last_log": logs[-1]} if logs else {}
    return {"metrics": judged(trainer, texts), "steps": trainer.state.global_step, **ends}


def sampled(trainer: StyleTrainer, temperature: float, seed: int) -> dict[str, float]:
    """The development metrics of rewrites that are drawn, not the likeliest."""
    rows = trainer.eval_rows
    texts = write(
        trainer.style_model, trainer.processing_class, rows["source"], rows["style"],
        temperature=temperature, max_new_tokens=64, seed=seed,
    )  # fmt: skip
    return judged(trainer, [text for (text,) in texts])


def judged(trainer: StyleTrainer, texts: Sequence[str]) -> dict[str, float]:
    """The development metrics of `texts`."""
    return metrics_of(texts, trainer.eval_rows, trainer.eval_task, trainer.setting)
