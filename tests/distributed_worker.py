"""Runs of the toy that one process and several must agree on: `accelerate launch distributed_worker.py OUT CASE...`.

Not a test itself: the tests run a case here, in processes, and once more in their own.
"""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor
from training_fixtures import adapted, gpt2, llama, make_trainer, randomised, t5, toy_rows
from transformers import TrainerCallback

from style_adapter.trainer import StyleTrainer

BATCH = 8  # rows of a step over all processes

# SGD, so that a difference of 1e-7 in a gradient stays one in the weights.
SGD: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.02, "discriminator_learning_rate": 0.1, "max_steps": 3}
# With this fraction some step has judged rows in one of two processes only.
GAME: dict[str, Any] = {"adversary_start": 1, "adversary_fraction": 0.2, "novel_token_weight": 3.0, "w_r1": 0.1}


def random_adapter(**options: Any) -> Callable[[], PeftModel]:
    """A random adapter on the Llama: every tensor matters from the first step."""
    return lambda: randomised(adapted(**options))


def cut_off() -> PeftModel:
    """An adapter with one layer that the loss does not reach: its forward is that of the frozen layer."""
    model = adapted()
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    layer.forward = layer.base_layer.forward
    return model


UNPAIRED: dict[str, Any] = {
    "rows": toy_rows().map(lambda row: {"text": row["target"]}, remove_columns=["source", "target"]),
    "adversary_fraction": 0.5,
    "sampling_length": 6,
}

REWARDED: dict[str, Any] = {"estimator": "reinforce", "w_feat": 0.0, "w_cls": 0.0}

# What a case is: the model, and options of the trainer.
CASES: dict[str, tuple[Callable[[], PeftModel], dict[str, Any]]] = {
    "game": (random_adapter(noise_dim=2), SGD | GAME),
    "adapter alone": (random_adapter(), SGD | {"adversary_fraction": 0.0, "max_grad_norm": 0.0}),
    "accumulated": (random_adapter(), SGD | GAME | {"gradient_accumulation_steps": 2}),
    "recomputed": (random_adapter(), SGD | GAME | {"activation_checkpointing": True}),
    "unclipped": (random_adapter(), SGD | GAME | {"max_grad_norm": 0.0}),
    "spectral norm": (
        random_adapter(),
        SGD | GAME | {"game": "relativistic", "discriminator_spectral_norm": True, "discriminator_blocks": 2},
    ),
    "bfloat16 backbone": (lambda: randomised(adapted(llama().bfloat16())), SGD | GAME),
    "gpt2": (lambda: randomised(adapted(gpt2(bos_token_id=None))), SGD | GAME),
    "t5": (lambda: randomised(adapted(t5(), task_type="SEQ_2_SEQ_LM")), SGD | GAME),
    "whole modules": (
        lambda: randomised(adapted(llama(tie_word_embeddings=False), modules_to_save=["model.norm", "lm_head"])),
        SGD | GAME,
    ),
    "fresh adapter": (adapted, SGD | GAME | {"optim": "adamw_torch", "learning_rate": 1e-3, "adam_epsilon": 1e-3}),
    "one style": (adapted, SGD | GAME | {"rows": toy_rows().filter(lambda row: row["style"] == "loud")}),
    "unpaired": (
        random_adapter(noise_dim=2),
        SGD | GAME | UNPAIRED | {"replay_size": 6, "feature_matching": "mean", "w_div": 0.1, "instance_noise": 0.1},
    ),
    "rewarded": (random_adapter(), SGD | GAME | UNPAIRED | REWARDED | {"w_kl": 0.1}),
    "bf16": (random_adapter(), SGD | GAME | {"bf16": True}),
    "cut off": (cut_off, SGD | {"adversary_fraction": 0.0}),
}


class Sharded(TrainerCallback):
    """Notes at each step which share of the weights this process holds."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        parameters = list(kwargs["model"].parameters())
        own = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters)
        self.shares.append(own / max(1, sum(p.numel() for p in parameters)))  # ZeRO-3 leaves empty tensors


def trainer_of(folder: Path, model: PeftModel, *, processes: int, **options: Any) -> StyleTrainer:
    """A trainer of `BATCH` rows a step over all processes."""
    rows = BATCH // processes // options.get("gradient_accumulation_steps", 1)
    options |= {"per_device_train_batch_size": rows, "expected_processes": processes, "ddp_backend": "gloo"}
    return make_trainer(folder, model=model, **options)


def run_case(name: str, folder: Path, *, processes: int) -> StyleTrainer:
    """Trains the case and saves it into `folder`/`name`, with what was seen on the way in found.json."""
    model, options = CASES[name]
    noted = Sharded()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = trainer_of(folder / name, model(), processes=processes, callbacks=[noted], **options)
        trainer.train()
    trainer.save_model()
    if trainer.is_world_process_zero():
        messages = [str(warning.message) for warning in caught if "no gradient" in str(warning.message)]
        found = {"log": trainer.state.log_history, "shares": noted.shares, "warnings": messages}
        found["mode"] = trainer.accelerator.distributed_type.value
        (folder / name / "found.json").write_text(json.dumps(found), "utf-8")
    return trainer


class PressOnce(TrainerCallback):
    """Ctrl-C in the second step, on the last process alone."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1 and args.process_index == args.world_size - 1:
            os.kill(os.getpid(), signal.SIGINT)


def run_resumed(folder: Path, *, processes: int) -> None:
    """Four steps at once in `whole`, the last two again in `resumed` and, after Ctrl-C, in `interrupted`.

    In `best` it goes back to the second of four.
    """
    options = GAME | {"max_steps": 4, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 2}
    options |= {"adversary_start": 0, "adversary_fraction": 0.6, "w_r1": 0.0}
    whole = trainer_of(folder / "whole", adapted(noise_dim=2), processes=processes, **options)
    whole.train()
    whole.save_model()
    resumed = trainer_of(folder / "resumed", adapted(noise_dim=2, seed=5), processes=processes, **options)
    resumed.train(resume_from_checkpoint=str(folder / "whole" / "checkpoint-2"))
    resumed.save_model()
    stopped = trainer_of(
        folder / "interrupted", adapted(noise_dim=2), processes=processes, callbacks=[PressOnce()], **options
    )
    try:
        stopped.train()
    except KeyboardInterrupt:
        assert stopped.state.global_step == 2
    going_on = trainer_of(folder / "interrupted", adapted(noise_dim=2, seed=6), processes=processes, **options)
    going_on.train(resume_from_checkpoint=True)
    assert stopped.state.global_step == 2
    going_on.save_model()
    scores = iter([0.2, 0.9, 0.5, 0.6])
    options |= {"save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    best = trainer_of(folder / "best", adapted(), processes=processes, eval_dataset=toy_rows(["ab"]), **options)
    best.style_metrics = lambda: {"style_score": next(scores)}
    best.train()
    best.save_model()


if __name__ == "__main__":
    for case in sys.argv[2:]:
        if case == "resumed":
            run_resumed(Path(sys.argv[1]), processes=2)
        else:
            run_case(case, Path(sys.argv[1]), processes=2)
    torch.distributed.destroy_process_group()
