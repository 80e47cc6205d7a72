"""Ctrl-C: the running step ends, a whole checkpoint stands, the run goes on from it as if nothing had happened."""

import os
import signal
import threading
from typing import Any

import pytest
import torch
from training_fixtures import adapted, adapter_weights, make_trainer
from transformers import TrainerCallback

from style_adapter.trainer import StyleTrainer, discriminator_state, interruption
from style_adapter.trainer.manifest import flaw_of

OPTIONS: dict[str, Any] = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "lr_scheduler_type": "linear",
}  # 4 an epoch


class Press(TrainerCallback):
    """Sends a signal in a step, as often as it is asked to."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGINT, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times
        self.pressed = 0

    def on_substep_end(self, args, state, control, **kwargs):
        self.press(state.global_step + 1)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.press(state.global_step + 1)

    def press(self, step: int) -> None:
        while step == self.step and self.pressed < self.times:
            self.pressed += 1
            os.kill(os.getpid(), self.number)
            signal.getsignal(self.number)  # a handler runs between two lines


class Ends(TrainerCallback):
    """Whether trackers and progress bars were told that training ended."""

    ended = False

    def on_train_end(self, args, state, control, **kwargs):
        self.ended = True


def build(folder, *callbacks: TrainerCallback, **options: Any) -> StyleTrainer:
    return make_trainer(folder, model=adapted(dropout=0.1), callbacks=list(callbacks), **OPTIONS | options)


def sides(trainer: StyleTrainer) -> dict[str, torch.Tensor]:
    return {**adapter_weights(trainer.style_model), **discriminator_state(trainer.model)}


@pytest.mark.parametrize("step", [2, 4, 6], ids=["within an epoch", "at its end", "in the last step"])
def test_the_first_leaves_a_checkpoint_that_goes_on_to_where_an_uninterrupted_run_ends(tmp_path, capfd, step):
    whole = build(tmp_path / "whole")
    whole.train()
    ends = Ends()
    stopped = build(tmp_path / "run", Press(step), ends)
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step}; .*checkpoint-{step} is whole"):
        stopped.train()
    assert (stopped.state.global_step, ends.ended, stopped.is_in_train) == (step, True, False)
    folder = tmp_path / "run" / f"checkpoint-{step}"
    assert flaw_of(folder) is None  # though save_strategy is "no"
    said = capfd.readouterr()
    assert "SIGINT: stopping after this step" in said.err
    assert f"Stopped after step {step} of 6. {folder} is whole; go on with trainer.train(resume_from_" in said.out
    resumed = build(tmp_path / "run", resume_from_checkpoint=True)
    resumed.train()
    assert resumed.state.global_step == 6
    expected, found = sides(whole), sides(resumed)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_same_trainer_goes_on_too(tmp_path):
    whole = build(tmp_path / "whole")
    whole.train()
    trainer = build(tmp_path / "run", Press(3))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train(resume_from_checkpoint=True)
    expected, found = sides(whole), sides(trainer)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_second_stops_at_once_and_leaves_nothing_that_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(interruption, "ECHO", 0.0)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, Press(2, times=2)).train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_the_echo_of_a_launcher_is_no_second_one(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="is whole"):
        build(tmp_path, Press(2, times=2)).train()
    assert flaw_of(tmp_path / "checkpoint-2") is None


def test_sigterm_leaves_a_checkpoint_and_its_usual_exit_status(tmp_path):
    with pytest.raises(SystemExit) as left:
        build(tmp_path, Press(2, signal.SIGTERM)).train()
    assert left.value.code == 143
    assert flaw_of(tmp_path / "checkpoint-2") is None


def test_handlers_are_back_afterwards_and_those_of_others_are_never_touched(tmp_path):
    pressed = []
    former = {number: signal.getsignal(number) for number in interruption.DEFAULTS}
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, Press(1)).train()
    assert {number: signal.getsignal(number) for number in former} == former
    try:
        signal.signal(signal.SIGINT, lambda *received: pressed.append(received))
        trainer = build(tmp_path / "other", Press(1), max_steps=2)
        trainer.train()
    finally:
        signal.signal(signal.SIGINT, former[signal.SIGINT])
    assert (len(pressed), trainer.state.global_step) == (1, 2)


def test_outside_the_main_thread_training_runs_without_handlers(tmp_path):
    trainer = build(tmp_path, max_steps=2)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.state.global_step == 2


def test_a_signal_that_no_step_follows_is_delivered_when_training_has_ended(tmp_path):
    class Late(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            os.kill(os.getpid(), signal.SIGINT)

    trainer = build(tmp_path, Late(), max_steps=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.state.global_step == 2


def test_a_forked_worker_leaves_ctrl_c_to_the_main_process(capfd):
    asked = interruption.Interruption()
    with asked.listening():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7 if asked.asked else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "SIGINT" not in capfd.readouterr().err
