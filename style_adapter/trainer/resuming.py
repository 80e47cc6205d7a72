"""A run that was killed, or stopped between two steps, ends as if nothing had happened."""

import os
import time
import warnings
from contextlib import nullcontext
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy, TrainOutput

from ..arguments import StyleTrainingArguments
from .finite import StepGuard
from .interruption import Interruption
from .manifest import UNVOUCHED, flaw_of, newest_whole
from .progress import Progress, digest_of
from .terminal import say


class _Place(TrainerCallback):
    """Where in an epoch a run stands, and when Trainer's own counters have been set."""

    def __init__(self, trainer: "ResumingTrainer") -> None:
        self.trainer = trainer
        self.epoch_has_ended = False

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.take_up()

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.epoch_has_ended = False

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.epoch_has_ended = True


class ResumingTrainer(Trainer):
    """Trainer, but what a resumed run computes and logs is bitwise what an uninterrupted one does, times apart.

    - A log line stands at every checkpoint, so that no mean that is logged reaches across one.
    - A checkpoint lies between two steps of an epoch or after an epoch with all that belongs to its end, never between
      the last step and the end: Trainer would go on with the next epoch. A save that falls there waits.
    - What Trainer leaves out is in the checkpoint's progress.json. A run that had ended takes no further step.
    - Ctrl-C and SIGTERM let the running step end and leave a checkpoint; see `Interruption`.
    """

    args: StyleTrainingArguments
    guard: StepGuard
    interruption: Interruption
    resumed = False
    """Whether the present training was taken up from a checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Trainer's."""
        super().__init__(*args, **kwargs)
        self._save_due = False
        self._progress: Progress | None = Progress()
        self._started = time.time()
        self._place = _Place(self)
        self.add_callback(self._place)

    # Taking a run up

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Trains; Ctrl-C ends it with a checkpoint, by KeyboardInterrupt after the running step.

        Args:
            resume_from_checkpoint: A checkpoint's folder, or True for the newest whole one in `output_dir` and a fresh
                start where there is none; that of the arguments if left out, False for none.
            trial: Of a hyperparameter search.
            ignore_keys_for_eval: As Trainer has it.

        Raises:
            ValueError: The folder is no whole checkpoint.
            KeyboardInterrupt: Ctrl-C; the checkpoint is written. SIGTERM ends in SystemExit(143) the same way.
        """
        if resume_from_checkpoint is None and trial is None:
            resume_from_checkpoint = self.args.resume_from_checkpoint
        checkpoint = self._checkpoint_of(resume_from_checkpoint)
        try:
            aloud = self.is_local_process_zero()
            with self.interruption.listening(aloud=aloud) if trial is None else nullcontext():
                return super().train(checkpoint, trial, ignore_keys_for_eval)
        finally:
            self.is_in_train = False

    def _checkpoint_of(self, asked: str | bool | None) -> str | None:
        """The folder that `asked` means: one process looks, and all go on from the same one."""
        if not asked:
            return None
        found: list[str | None] = [None, None]
        if self.is_world_process_zero():
            try:
                found[0] = newest_of(str(self.args.output_dir)) if asked is True else checked(os.fspath(asked))
            except ValueError as error:
                found[1] = str(error)
        folder, refusal = broadcast_object_list(found)
        if refusal is not None:
            raise ValueError(refusal)
        return folder

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, checkpoint: Any, trial: Any
    ) -> tuple[int, int]:
        """Trainer's; then how far the run had come."""
        where = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial)
        self.resumed = checkpoint is not None
        self._progress = Progress.load(checkpoint) if self.resumed else Progress()
        self._save_due = False
        return where

    def take_up(self) -> None:
        """Trainer has set its counters to zero: sets them to what they were."""
        self._started = time.time()
        self.guard.skipped = self.guard.in_a_row = 0
        self.guard.stop_reason = None
        if self._progress is None:
            return
        self._total_loss_scalar = self._progress.total_loss
        self._initial_global_step = 0  # the means and the time that are logged at the end are the whole run's
        self.guard.skipped, self.guard.in_a_row = self._progress.skipped_steps, self._progress.skipped_in_a_row

    def progress(self) -> Progress:
        """How far the run has come."""
        before = self._progress or Progress()
        return Progress(
            total_loss=self._total_loss_scalar,
            seconds=before.seconds + time.time() - self._started,
            skipped_steps=self.guard.skipped,
            skipped_in_a_row=self.guard.in_a_row,
            stopped=self.control.should_training_stop and self.state.global_step < self.state.max_steps,
            options=digest_of(self.args),
        )

    @property
    def _is_over(self) -> bool:
        """Whether the run that is taken up had ended: by its steps, or early and with the same options."""
        before = self._progress
        early = before is not None and before.stopped and before.options == digest_of(self.args)
        return self.state.global_step >= self.state.max_steps or early

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """Trainer's; the evaluation before the first step (`eval_on_start`) is not one before a later step."""
        if skip_scheduler and self.state.global_step > 0:
            return {}
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Trainer's; but nothing where the run had ended when it was killed."""
        if self.state.global_step > 0 and self._is_over:
            say(
                f"The run had ended after step {self.state.global_step}; with other options it goes on.",
                self.args,
                self.state,
            )
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    # Checkpoints at the right place

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Trainer's; where each new best is saved, that waits for its place as any other save."""
        best = super()._determine_best_metric(metrics, trial)
        self._save_due |= best and self.args.save_strategy == SaveStrategy.BEST
        return best and self.args.save_strategy != SaveStrategy.BEST

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Any, model: nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Logs and evaluates as Trainer does; saves, and stops for who has asked, where a run can be taken up."""
        self._save_due |= self.control.should_save
        self.control.should_save = False
        self.control.should_log |= self._save_due
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        alone = self.accelerator.num_processes == 1
        asked = trial is None and (self.interruption.asked if alone else self.interruption.agreed)
        if not (self._save_due or asked):
            return
        self.control.should_log = True  # a signal, or a new best, makes a save due after the line has been written
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        ends = float(self.state.epoch).is_integer() or self.control.should_epoch_stop
        if (ends or self.control.should_training_stop) and not self._place.epoch_has_ended:
            return  # what belongs to the epoch's end follows, and then the save
        self._save_checkpoint(model, trial)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        self._save_due = False
        if asked:
            self._stop_for_signal()

    def _stop_for_signal(self) -> None:
        """Says where the checkpoint is, and leaves `train`."""
        folder = os.path.join(str(self.args.output_dir), f"checkpoint-{self.state.global_step}")
        self.callback_handler.on_train_end(self.args, self.state, self.control)  # trackers and progress bars close
        say(
            f"Stopped after step {self.state.global_step} of {self.state.max_steps}. {folder} is whole; go on with "
            "trainer.train(resume_from_checkpoint=True) or --resume_from_checkpoint true.",
            self.args,
            self.state,
        )
        self.interruption.leave(f"stopped after step {self.state.global_step}; {folder} is whole")

    # What is logged

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's line, with the number of dropped steps so far, if any."""
        if "loss" in logs and self.guard.skipped:
            logs["skipped_steps"] = self.guard.skipped
        super().log(logs, start_time)

    def _finalize_training(self, trial: Any, num_train_samples: int | float, start_time: float) -> TrainOutput:
        """Trainer's, over all sessions of the run; why a run without finite gradients has stopped."""
        if self.guard.stop_reason is not None:
            say(f"Stopped at step {self.state.global_step}: {self.guard.stop_reason}.", self.args, self.state)
        earlier = 0.0 if self._progress is None else self._progress.seconds
        return super()._finalize_training(trial, num_train_samples, start_time - earlier)


def newest_of(run: str) -> str | None:
    """The checkpoint to go on from, or None for a fresh start, said aloud; one warning names those that are broken."""
    folder, flaws = newest_whole(run)
    if flaws:
        named = "; ".join(f"{name} {flaw}" for name, flaw in flaws.items())
        warnings.warn(f"passed over in {run}, since not whole: {named}", stacklevel=5)
    tqdm.write(f"Going on from {folder}." if folder else f"No whole checkpoint in {run}: a fresh start.")
    return folder


def checked(folder: str) -> str:
    """`folder`, a whole checkpoint.

    Raises:
        ValueError: It is not whole.
    """
    flaw = flaw_of(folder)
    if flaw is None:
        return folder
    remedy = "give True for the newest whole one in output_dir"
    if flaw == UNVOUCHED:
        remedy = (
            "a save was cut off there, or another tool wrote it: where you know the folder to be complete, "
            f"style_adapter.trainer.write_manifest(folder) says so; else {remedy}"
        )
    raise ValueError(f"resume_from_checkpoint={folder!r} {flaw} and must be a whole checkpoint; {remedy}")
