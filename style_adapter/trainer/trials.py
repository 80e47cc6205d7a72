"""A game that is built anew: for each trial of `hyperparameter_search`, and for each `train` of a `model_init`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback, set_seed

from ..adversary import StyleDiscriminator
from ..data import EitherCollator
from ..game import StyleGame
from ..inference import prompt_of
from ..model import styles_of
from ..style import StyleBank
from ..tasks import TASKS, Setting, Task
from .callbacks import run_callbacks
from .finite import StepGuard
from .record import GameRecord
from .saving import SavingTrainer
from .sides import build_game


class TrialTrainer(SavingTrainer):
    """All that depends on the adapter is built here: the game, what watches it, what collates for it."""

    bank: StyleBank
    setting: Setting
    task: Task
    eval_task: Task
    model_init: Any  # () or (trial) -> PeftModel
    evaluated_on: Any  # the evaluation rows as they were given
    _watchers: list[TrainerCallback]

    def _build(self, model: PeftModel, discriminator: StyleDiscriminator | None = None) -> StyleGame:
        """The game around `model`, and what watches its steps; the discriminator's start depends on the seed alone."""
        self.bank, self.style_model = styles_of(model), model
        self.setting = replace(self.setting, model=model, likelihoods={})
        self._record = GameRecord()
        set_seed(self.args.seed)
        unpaired = self.task is TASKS["unpaired"]
        game = build_game(model, self.args, discriminator, self.setting.tokenizer, unpaired=unpaired)
        game.lockstep = self.args.asks_fsdp is not None
        self.guard = StepGuard(game, self.args, self.interruption)
        self._watchers = [*run_callbacks(self.args, game, self.setting.draws.clock), self.guard]
        return game

    def _collator(self, rows: Any, held_out: Any) -> Callable[..., Any]:
        """Tokenised training rows, and evaluation rows of another kind, -> tensors."""
        collators: dict[Task, Any] = {self.task: self.task.collator(self.setting, self.setting.trained_on, rows)}
        if held_out and self.eval_task is not self.task:
            collators[self.eval_task] = self.eval_task.collator(self.setting, self.evaluated_on, held_out)
        if (unpaired := TASKS["unpaired"]) in collators:
            self.setting = replace(self.setting, pool=collators[unpaired].pool)
        several = len(collators) > 1
        return EitherCollator(collators[unpaired], collators[TASKS["transfer"]]) if several else collators[self.task]

    def _fresh_adapter(self, trial: Any = None) -> PeftModel:
        """What `model_init` gives."""
        model: Any = super().call_model_init(trial)
        return model

    def call_model_init(self, trial: Any = None) -> StyleGame:
        """A fresh adapter of `model_init` in a fresh game; a trial's options are set before both are built.

        Raises:
            ValueError: An option of the trial is out of its bounds, or the adapter reads the rows in another way.
        """
        if trial is not None:
            self._hp_search_setup(trial)  # Trainer would do so later
            self.args.settle()
        known, former = _reading(self.style_model), self._watchers
        game = self._build(self._fresh_adapter(trial))
        if _reading(self.style_model) != known:
            raise ValueError(
                "model_init must give each adapter the same styles and prompt, since the rows are tokenised once; "
                "leave them out of the search"
            )
        callbacks = self.callback_handler.callbacks
        callbacks[:] = [*(callback for callback in callbacks if callback not in former), *self._watchers]
        self.data_collator = self._collator(self.train_dataset, self.eval_dataset)
        return game


def _reading(model: PeftModel) -> tuple[list[str], str | None]:
    """What the tokenised rows depend on."""
    return list(styles_of(model)), prompt_of(model)


def check_model(model: Any, model_init: Any, discriminator: Any) -> None:
    """Refuses two sources of one model.

    Raises:
        ValueError: Both a model and `model_init`, or neither; or a discriminator that all trials would share.
    """
    if (model is None) == (model_init is None):
        given = "neither" if model is None else "both"
        raise ValueError(f"of model and model_init exactly one must be given, not {given}; leave out the other")
    if model_init is not None and discriminator is not None:
        raise ValueError("discriminator must be left out with model_init: each training builds a fresh one of args")
