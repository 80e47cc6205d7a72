"""Runs of the toy that are killed by SIGKILL and taken up again: `python resume_worker.py FOLDER KILL...`.

Not a test itself. It imports once and forks for each session: one run without any kill in FOLDER/whole, one in
FOLDER/killed with a session for each kill (`writes:5`: after the fifth thing it does to the disk; `seconds:1.5`;
`end`: before the run's last lines) and a last one that ends.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import peft.peft_model
import sklearn.pipeline  # noqa: F401 - imported once, as all sessions judge
import torch
from dying import begun, counted, die, status_of
from training_fixtures import adapted, make_trainer, toy_rows
from transformers import TrainerState

from style_adapter.trainer import StyleTrainer, files
from style_adapter.trainer.progress import Progress

SCORES = {2: 0.2, 4: 0.9, 6: 0.5, 8: 0.6}  # stops after step 8, keeps the one of step 4
OPTIONS: dict[str, Any] = {
    "max_steps": 14,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,  # 4 steps an epoch
    "logging_steps": 3.0,
    "save_strategy": "steps",
    "save_steps": 2.0,
    "save_total_limit": 2,
    "eval_strategy": "steps",
    "eval_steps": 2.0,
    "eval_on_start": True,
    "eval_samples": 2,
    "early_stopping_patience": 2,
    "load_best_model_at_end": True,
    "lr_scheduler_type": "linear",
    "w_r1": 0.1,
    "adversary_start": 1,
    "adversary_fraction": 0.6,
    "resume_from_checkpoint": True,
}


def build(folder: Path, *, measures: bool = True, **options: Any) -> StyleTrainer:
    """A trainer whose style score is written down; the rest of its evaluations is real, where it `measures`."""
    rows = toy_rows(["mn", "op"])
    trainer = make_trainer(folder, model=adapted(dropout=0.1, noise_dim=2), eval_dataset=rows, **OPTIONS | options)
    measure = trainer.style_metrics if measures else dict
    trainer.style_metrics = lambda: {**measure(), "style_score": SCORES.get(trainer.state.global_step, 0.0)}
    return trainer


def die_after_writes(number: int) -> None:
    """Dies after the `number`-th file that is written, settled, renamed or removed."""
    countdown = [number]
    for owner, name in (
        (torch, "save"),
        (files, "save_file"),
        (peft.peft_model, "safe_save_file"),
        (TrainerState, "save_to_json"),
        (Progress, "save"),
        (os, "fsync"),
        (os, "replace"),
        (os, "unlink"),
    ):
        counted(owner, name, countdown)


def session(folder: Path, kill: str) -> None:
    """Trains until the end, or until it is killed."""
    kind, _, when = kill.partition(":")
    if kind == "writes":
        die_after_writes(int(when))
    if kind == "end":
        StyleTrainer._finalize_training = lambda *args, **kwargs: die()
    trainer = build(folder)
    done = trainer.train()
    trainer.save_model(str(folder / "final"))
    found = {"log": trainer.state.log_history, "loss": done.training_loss, "best": trainer.state.best_model_checkpoint}
    (folder / "final" / "found.json").write_text(json.dumps(found), "utf-8")


def fork(folder: Path, kill: str) -> int:
    """Runs one session in a process of its own; its exit status."""
    child = begun(session, folder, kill)
    if kill.startswith("seconds"):
        time.sleep(float(kill.partition(":")[2]))
        os.kill(child, signal.SIGKILL)  # a child that has ended waits for us
    return status_of(child)


def main(folder: Path, kills: list[str]) -> None:
    statuses = {"": fork(folder / "whole", "")}
    for kill in [*kills, "last"]:
        statuses[kill] = fork(folder / "killed", kill)
        kept = sorted(path.name for path in (folder / "killed").glob("checkpoint-*/manifest.json"))
        print(kill, statuses[kill], kept, flush=True)
    (folder / "statuses.json").write_text(json.dumps(statuses), "utf-8")


if __name__ == "__main__":
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    main(Path(sys.argv[1]), sys.argv[2:])
