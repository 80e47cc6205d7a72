"""A trainer that looks at what its model writes: scores at evaluations, samples in between, gradients by term."""

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import EvalPrediction, SchedulerType, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

from ..columns import WRITTEN
from ..metrics import SampleReport, right_styles
from ..tasks import Orders, Task
from .monitor import GameMonitor
from .sharding import whole_weights
from .term_gradients import TermGradients
from .terminal import sample_lines, say
from .trials import TrialTrainer

_SHOWN = 4  # samples on the terminal at each look
GAME_TERMS = ("adv", "feat", "cls")  # the generator's side of the game, which the monitor scales


class LookSteps(TrainerCallback):
    """A log line at each step whose samples are looked at, so that one line has it all."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Every `watch_steps`."""
        if args.watch_steps and state.global_step % args.watch_steps == 0:
            control.should_log = True


def watching_callbacks(given: list[TrainerCallback]) -> list[TrainerCallback]:
    """What a watched run has beside the callbacks that were `given`, a monitor among them or not."""
    monitored = any(isinstance(callback, GameMonitor) for callback in given)
    return [LookSteps()] if monitored else [LookSteps(), GameMonitor()]


class WatchingTrainer(TrialTrainer):
    """TrialTrainer, with its model's texts in the log."""

    eval_rows: Any
    _looks = True  # until something that a look needs is missing
    _samples_to_show = ""

    @property
    def monitor(self) -> GameMonitor | None:
        """The monitor among the callbacks: Trainer puts another in its place when a run is resumed."""
        return next((c for c in self.callback_handler.callbacks if isinstance(c, GameMonitor)), None)

    @property
    def adversary_scale(self) -> float:
        """What w_adv, w_feat and w_cls are multiplied by; 1 until the monitor says otherwise."""
        return 1.0 if self.monitor is None else self.monitor.adversary_scale

    @property
    def stop_reason(self) -> str | None:
        """Why training was stopped, by the monitor or for gradients that were not finite; None where it was not."""
        return self.guard.stop_reason or (None if self.monitor is None else self.monitor.stop_reason)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trainer's evaluation; a run that is evaluated often draws the same numbers as one that never is."""
        with _own_randomness():
            return super().evaluate(*args, **kwargs)

    def style_metrics(self) -> dict[str, float]:
        """The task's metrics on the evaluation rows, and statistics of what was written."""
        rows = self.eval_rows
        with whole_weights(self.model, self.accelerator):
            predictions = self._predictions(rows, self.eval_task)
            self._fit_judge()
            orders = self.eval_task.orders(rows, self.setting)
            scores = self.eval_task.score(predictions, rows, self.setting) | self._own_metrics(
                predictions, rows, orders
            )
        return scores if orders is None else self._look_at(predictions, orders).to_dict() | scores

    def _own_metrics(self, predictions: list[Any], rows: Any, orders: Orders | None) -> dict[str, float]:
        """What the user's `compute_metrics` makes of the predictions; see `StyleTrainer`."""
        if self.compute_metrics is None:
            return {}
        wanted: Any = next((list(rows[name]) for name in ("target", "label") if name in rows.column_names), None)
        inputs: Any = None
        if orders is not None and orders.rewrites:
            labels, scorer = orders.labels(self.setting), self.setting.scorer
            inputs = {"sources": orders.sources, "styles": labels, "scorer": scorer}
        written: Any = predictions
        return dict(self.compute_metrics(EvalPrediction(written, wanted, inputs=inputs)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The line of a step also has what was watched in it; samples follow below."""
        super().log(logs | self._watched() if "loss" in logs else logs, start_time)
        if self._samples_to_show:
            say(self._samples_to_show, self.args, self.state)
            self._samples_to_show = ""

    def _watched(self) -> dict[str, float]:
        """`adversary_scale` in a game; `sample_<statistic>` and `grad_norm_<term>`, at their steps."""
        reduce, device = self.accelerator.reduce, self.accelerator.device
        numbers = {"adversary_scale": self.adversary_scale} if self.args.plays else {}
        if self.args.term_gradient_steps:
            numbers |= self._terms.drain(self.model, lambda tensor: reduce(tensor, reduction="sum"), device=device)
        every = self.args.watch_steps if self._looks and not self.hides_weights else 0
        return numbers | self._samples() if every and self.state.global_step % every == 0 else numbers

    def _measure(self, terms: Mapping[str, Tensor]) -> None:
        """Each weighted term's own gradient, every `term_gradient_steps`."""
        step = self.state.global_step + 1  # the one that this batch is a part of
        if self.args.term_gradient_steps and step % self.args.term_gradient_steps == 0:
            self._terms.add(self.model, terms, step=step)

    def _samples(self) -> dict[str, float]:
        """The statistics of `watch_samples` rows, rewritten greedily; the run's own randomness stays as it is."""
        held_out = self.eval_rows is not None
        task, given = (self.eval_task, self.eval_rows) if held_out else (self.task, self.setting.trained_on)
        rows = _some_rows(given, self.args.watch_samples, seed=self.args.seed)
        orders = task.orders(rows, self.setting)
        if orders is None:
            return {}
        try:
            with _own_randomness(), whole_weights(self.model, self.accelerator):
                outputs = self._predictions(rows, task)
                self._fit_judge()
                report = self._look_at(outputs, orders)
        except ImportError as missing:
            warnings.warn(f"{missing}; or set watch_steps=0: samples are not looked at", stacklevel=2)
            self._looks = False
            return {}
        return {f"sample_{name}": value for name, value in report.to_dict().items()}

    def _predictions(self, rows: Any, task: Task) -> list[Any]:
        """The prediction of `task` for each row: each process makes its share, and all of them get the whole."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = list(range(rank, len(rows), world))
        predictions = task.predict(rows.select(mine), self.setting)
        found = dict(gather_object(list(zip(mine, predictions, strict=True))))
        return [found[i] for i in range(len(rows))]

    @cached_property
    def _terms(self) -> TermGradients:
        """What each term's gradient has come to in a step that is measured."""
        return TermGradients()

    @cached_property
    def _styles_differ(self) -> bool:
        """Whether there is anything to judge in texts that are written."""
        written = self.args.task in WRITTEN
        return written and len(set(self.bank.labels(self.setting.trained_on["style"]))) > 1

    def _fit_judge(self) -> None:
        """A judge of the training texts, where none was given and they are of several styles."""
        if self.setting.judge is None and self._styles_differ:
            self.setting = replace(self.setting, judge=self.task.judge_of(self.setting.trained_on, self.setting))

    def _settle_best_metric(self) -> None:
        """No metric picks the best checkpoint where that would be J, and no judge can give it.

        Raises:
            ValueError: Something waits for that metric.
        """
        args = self.args
        judged = args.task not in WRITTEN or self.setting.judge is not None or self._styles_differ
        if judged or args.metric_for_best_model not in ("style_score", "eval_style_score"):
            return
        plateau = SchedulerType(args.lr_scheduler_type) == SchedulerType.REDUCE_ON_PLATEAU
        best = args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST
        if best or plateau or args.early_stopping_patience:
            raise ValueError(
                "metric_for_best_model='style_score' must be a metric that needs no judge: all texts of train_dataset "
                "are of one style, and a judge tells at least 2 apart; set metric_for_best_model='loss', or pass judge="
            )
        args.metric_for_best_model = None  # Trainer would miss it at the first evaluation

    def _look_at(self, outputs: list[str], orders: Orders) -> SampleReport:
        """The statistics of `outputs`; some of them are shown below the next log line."""
        sources, styles, judge = orders.sources, orders.labels(self.setting), self.setting.judge
        report = SampleReport.of(outputs, sources if orders.rewrites else None, styles, judge=judge)
        right = None if judge is None else right_styles(outputs[:_SHOWN], styles[:_SHOWN], judge)
        self._samples_to_show = sample_lines(outputs[:_SHOWN], sources[:_SHOWN], styles[:_SHOWN], right)
        return report


def _some_rows(rows: Any, count: int, *, seed: int) -> Any:
    """`count` of the rows, the same ones at each call, with ids: each process takes some of them."""
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()
    return datasets.Dataset.from_dict(rows.select(chosen).to_dict() | {"row_id": chosen})


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Inside the block every generator may be drawn from; afterwards each is where it was."""
    python, arrays = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
