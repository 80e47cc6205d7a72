"""A step without finite gradients moves nothing, is counted, and ends the run when it comes again and again."""

import math

import pytest
import torch
from training_fixtures import adapted, adapter_weights, make_trainer
from transformers import TrainerCallback

from style_adapter.trainer import StyleTrainer, discriminator_state, sides_of


class Spoil(TrainerCallback):
    """Puts `value` into one gradient of a side in some steps, before Trainer clips."""

    def __init__(self, *steps: int, side: int = 0, value: float = math.nan) -> None:
        self.steps, self.side, self.value = steps, side, value
        self.trainer: StyleTrainer | None = None
        self.states: dict[int, dict[str, torch.Tensor]] = {}

    def watch(self, trainer: StyleTrainer) -> None:
        self.trainer = trainer
        clip = trainer._clip_grad_norm

        def spoilt(model):
            if trainer.state.global_step + 1 in self.steps:
                next(p for p in sides_of(trainer.model)[self.side] if p.grad is not None).grad.view(-1)[0] = self.value
            return clip(model)

        trainer._clip_grad_norm = spoilt

    def on_step_end(self, args, state, control, **kwargs):
        self.states[state.global_step] = moved(self.trainer)


def moved(trainer: StyleTrainer) -> dict[str, torch.Tensor]:
    """A copy of all that a step moves, the optimizer's moments too."""
    states = trainer.optimizer.state_dict()["state"]
    moments = {f"{key}.{name}": t.clone() for key, state in states.items() for name, t in state.items()}
    return {**adapter_weights(trainer.style_model), **discriminator_state(trainer.model), **moments}


def run(folder, spoil: Spoil, **options) -> StyleTrainer:
    trainer = make_trainer(folder, model=adapted(), callbacks=[spoil], **{"max_steps": 5} | options)
    spoil.watch(trainer)
    trainer.train()
    return trainer


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1], ids=["adapter", "discriminator"])
def test_a_step_with_one_number_that_is_not_finite_moves_neither_side(tmp_path, side, value):
    spoil = Spoil(3, side=side, value=value)
    trainer = run(tmp_path, spoil)
    assert_equal(spoil.states[3], spoil.states[2])
    assert any(not torch.equal(t, spoil.states[2][name]) for name, t in spoil.states[4].items())
    assert all(t.isfinite().all() for t in spoil.states[5].values())
    assert [line.get("skipped_steps") for line in trainer.state.log_history[:5]] == [None, None, 1, 1, 1]
    assert (trainer.state.global_step, trainer.guard.skipped, trainer.guard.stop_reason) == (5, 1, None)


def test_without_clipping_it_moves_neither_side_either(tmp_path):
    spoil = Spoil()
    trainer = make_trainer(tmp_path, model=adapted(), callbacks=[spoil], max_steps=3, max_grad_norm=0.0)
    spoil.trainer = trainer
    norm = trainer._get_grad_norm

    def spoilt(model, grad_norm=None):
        if trainer.state.global_step == 1:
            sides_of(trainer.model)[1][0].grad.view(-1)[0] = math.nan
        return norm(model, grad_norm)

    trainer._get_grad_norm = spoilt
    trainer.train()
    assert_equal(spoil.states[2], spoil.states[1])
    assert trainer.guard.skipped == 1


def test_several_in_a_row_end_the_run_with_a_reason_and_fewer_do_not(tmp_path, capsys):
    trainer = run(tmp_path, Spoil(1, 2, 4, 5, 6, 7, side=1), max_steps=12)
    assert (trainer.state.global_step, trainer.guard.skipped) == (6, 5)
    expected = "not finite: the gradients of the discriminator were NaN or infinite in 3 steps in a row; lower "
    assert trainer.guard.stop_reason.startswith(expected + "discriminator_learning_rate")
    assert f"Stopped at step 6: {trainer.guard.stop_reason}" in capsys.readouterr().out
    patient = run(tmp_path, Spoil(1, 2, 4, 5, 6, 7), max_steps=8, max_skipped_steps=5)
    assert (patient.state.global_step, patient.guard.stop_reason) == (8, None)


def test_the_count_is_taken_up_with_the_run(tmp_path):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3.0}
    whole = run(tmp_path, Spoil(2, 3, 4), **options)
    assert (whole.state.global_step, whole.guard.skipped) == (4, 3)
    resumed = make_trainer(tmp_path, **options)
    spoil = Spoil(4)
    resumed.add_callback(spoil)
    spoil.watch(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert (resumed.state.global_step, resumed.guard.skipped, resumed.guard.in_a_row) == (4, 3, 3)
    lines = [[sorted(line.items()) for line in t.state.log_history if "loss" in line] for t in (whole, resumed)]
    assert str(lines[0]) == str(lines[1])  # a NaN equals itself as a word


def test_a_first_step_that_is_dropped_is_no_sign_of_layers_cut_off(tmp_path):
    run(tmp_path, Spoil(1), max_steps=3)  # warnings are errors here: B is still 0 in the second step


def test_fp16_leaves_overflows_to_its_scaler(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.args.fp16 = True
    guard = type(trainer.guard)(trainer.model, trainer.args, trainer.interruption)
    guard.norms = {"adapter": math.inf}
    guard.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)
    assert guard.skipped == 0
