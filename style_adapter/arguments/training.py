"""Training arguments: transformers' own, and the options of the game."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from transformers import SchedulerType, TrainingArguments

from ..columns import WRITTEN
from .adversary import AdversaryOptions
from .objective import ObjectiveOptions
from .options import check_options, option
from .watching import WatchOptions


@dataclass
class StyleTrainingArguments(ObjectiveOptions, AdversaryOptions, WatchOptions, TrainingArguments):
    """Training arguments of `StyleTrainer`: everything Trainer has, and the options of the game.

    The objective is w_ce * CE (or w_rec * CE(x | corrupt(x)) + w_bt * CE(x | y) where texts are unpaired) + w_adv * L_G
    + w_feat * MSE(phi, S*) + w_cls * CE(style head) + w_div * L_div + w_kl * KL + w_pref * L_pref for the adapter, L_D
    + w_d_cls * CE(style head, real) + w_r1 / 2 * R1 + w_r2 / 2 * R2 for the discriminator, one backward for both.

    Raises:
        ValueError: An option is out of its bounds; the message names the option, the bound and the remedy.
    """

    gate_learning_rate: float | None = option(
        None, "Learning rate of the style gates; ten times learning_rate if left out.", bounds=">= 0"
    )
    expected_processes: int | None = option(
        None, "Refuse to train with another number of processes than this.", bounds=">= 1"
    )
    resume_from_checkpoint: str | bool | None = option(  # type: ignore[assignment]  # Trainer.train takes True too
        None, "Checkpoint folder to go on from; true: the newest whole one in output_dir, or a fresh start."
    )
    remove_unused_columns: bool = option(False, "Left False: the model's signature does not name the style columns.")
    # Two forwards of the backbone a step make DDP fail with the search for unused parameters that Trainer turns on.
    ddp_find_unused_parameters: bool | None = option(
        False, "Left False: every parameter gets a gradient at every step."
    )
    metric_for_best_model: str | None = option(
        "style_score", "Evaluation metric that picks the best checkpoint; style_score: J, or a classifier's accuracy."
    )
    greater_is_better: bool | None = option(
        None, "Whether more of that metric is better; if left out, it is unless its name ends in loss."
    )
    restore_callback_states_from_checkpoint: bool = option(
        True, "Left True: a resumed run goes on with the monitor and the patience that it had."
    )

    def __post_init__(self) -> None:
        """Checks the options of the game, then transformers' own."""
        self.settle()
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()  # Trainer refuses bf16 otherwise
        if self.fp16 and self.use_cpu:
            raise ValueError("fp16=True must be False on the CPU, where it would be passed over; set bf16=True instead")
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            self.ddp_backend = None  # so that a recipe for several processes runs in one: Accelerate finds no group
        super().__post_init__()
        if self.early_stopping_patience and self.eval_strategy == "no":
            raise ValueError(
                f"early_stopping_patience={self.early_stopping_patience} must come with evaluations; set eval_strategy"
            )
        if self.term_gradient_steps:
            self._check_term_gradients()

    def _check_term_gradients(self) -> None:
        """Refuses to measure a term's gradient where it is in shards, or cannot be taken alone.

        Raises:
            ValueError: FSDP, DeepSpeed, or reentrant checkpointing.
        """
        options = self.activation_checkpointing_kwargs
        reentrant = isinstance(options, dict) and bool(options.get("use_reentrant"))
        if self.asks_fsdp or self.asks_deepspeed or reentrant:
            raise ValueError(
                f"term_gradient_steps={self.term_gradient_steps} must be 0 under FSDP, DeepSpeed and reentrant "
                "checkpointing, which pass no gradient of one term alone; set it to 0"
            )

    def settle(self) -> None:
        """Checks the options of the game, and fills in those that follow from others; also after a change of some."""
        check_options(self)
        self._settle_smoothing()
        self._check_fakes()
        self._check_rewards()
        self._check_schedules(SchedulerType(self.lr_scheduler_type).value)

    def _check_rewards(self) -> None:
        """Refuses terms that need a gradient through the text where rewards alone teach.

        Raises:
            ValueError: Such a term.
        """
        for name in ("w_feat", "w_cls", "w_div"):
            if self.estimator == "reinforce" and (weight := getattr(self, name)) > 0:
                raise ValueError(
                    f"{name}={weight} must be 0 for estimator='reinforce', which passes no gradient through the text, "
                    "only rewards; set it to 0, or choose another estimator"
                )

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: Trainer writes one into the run's folder, and may upload it, so no token."""
        return vars(self) | {"hub_token": None}

    @property
    def plays(self) -> bool:
        """Whether there is a game at all: some rows are judged, and some term wants them."""
        wanted = max(self.w_adv, self.w_feat, self.w_cls, self.w_div) > 0
        return self.task in WRITTEN and self.adversary_fraction > 0 and wanted

    def plays_at(self, step: int) -> bool:
        """Whether the game is played at an optimizer step: after the warm-up."""
        return step >= self.adversary_start

    def teaches_at(self, step: int) -> bool:
        """Whether an optimizer step trains the adapter; the others of `discriminator_steps` train D alone."""
        alone = self.plays and self.plays_at(step) and (step - self.adversary_start + 1) % self.discriminator_steps
        return not alone

    @property
    def asks_fsdp(self) -> int | None:
        """The version of FSDP that the launcher or these arguments ask for; None for none."""
        if self.fsdp_plugin_args is not None:
            return int(self.fsdp_plugin_args["fsdp_version"])
        return int(os.environ.get("FSDP_VERSION", "1")) if _set("ACCELERATE_USE_FSDP") else None

    @property
    def asks_deepspeed(self) -> bool:
        """Whether the launcher or these arguments ask for DeepSpeed."""
        return bool(self.deepspeed) or _set("ACCELERATE_USE_DEEPSPEED")


def _set(variable: str) -> bool:
    """Whether the launcher has set an option of Accelerate."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
