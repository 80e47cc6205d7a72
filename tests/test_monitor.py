"""The monitor: when it takes weight from the adversary and gives it back, when it stops a run, and that it resumes."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from training_fixtures import adapter_weights, arguments, make_trainer, toy_rows
from transformers import TrainerControl, TrainerState

from style_adapter import GameMonitor, StyleTrainer
from style_adapter.arguments import StyleTrainingArguments
from style_adapter.trainer import discriminator_state
from style_adapter.trainer.monitor import STOPS, TROUBLES

WELL = {"copy_rate": 0.0, "repetition_rate": 0.0, "same_output": 0.0, "distinct_2": 0.9, "content": 0.6}


class Course:
    """A monitor in the course of a run, fed line by line."""

    def __init__(self, folder: Path, **options) -> None:
        self.args = arguments(folder, **{"monitor_patience": 2, "adversary_start": 10, **options})
        self.state, self.control, self.monitor = TrainerState(max_steps=1000), TrainerControl(), GameMonitor()
        self.monitor.on_train_begin(self.args, self.state, self.control)
        self.state.global_step = 10

    def line(self, *, times: int = 1, d: float | None = None, kind: str = "sample", **samples: float) -> float:
        """Logs D's accuracy, a look at samples, or both; the adversary's scale afterwards."""
        for _ in range(times):
            logs = {} if d is None else {"d_accuracy_real": d, "d_accuracy_fake": d}
            logs |= {f"{kind}_{name}": value for name, value in samples.items()}
            self.monitor.on_log(self.args, self.state, self.control, logs=logs)
        return self.monitor.adversary_scale


# The adversary's weight


def test_a_game_that_the_discriminator_wins_gets_a_smaller_weight_and_an_even_one_keeps_it(tmp_path, capsys):
    course = Course(tmp_path)
    assert course.line(d=0.9, times=20) == 1.0
    assert course.line(d=1.0) == 1.0  # the mean of two lines is what counts
    assert course.line(d=1.0) == 0.5
    assert course.line(d=1.0) == 0.5  # and begins anew after it was acted on
    assert course.line(d=1.0) == 0.25
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "Step 10: D wins with an accuracy of 1.00 (monitor_d_accuracy=0.95); the adversary's weight is now x 0.5; "
        "lower discriminator_learning_rate or raise instance_noise if it stays so."
    )
    assert len(lines) == 2
    assert not course.control.should_training_stop


def test_real_and_fake_texts_count_alike(tmp_path):
    course = Course(tmp_path)
    for _ in range(4):
        logs = {"d_accuracy_real": 1.0, "d_accuracy_fake": 0.88}
        course.monitor.on_log(course.args, course.state, course.control, logs=logs)
    assert course.monitor.adversary_scale == 1.0


def test_the_weight_stops_at_the_floor_and_comes_back_slowly(tmp_path, capsys):
    course = Course(tmp_path, monitor_floor=0.3)
    assert course.line(d=1.0, times=20) == 0.3
    assert len(capsys.readouterr().out.splitlines()) == 2  # nothing is said where nothing changes
    scales = [course.line(d=0.7, times=2) for _ in range(14)]
    assert scales[0] == pytest.approx(0.33)
    assert scales == sorted(scales)
    assert scales[-1] == 1.0
    assert course.line(d=0.7, times=10) == 1.0


def test_content_that_falls_lowers_the_weight_until_it_is_seen_to_be_back(tmp_path, capsys):
    course = Course(tmp_path)
    assert course.line(**WELL, times=4) == 1.0
    assert course.line(**WELL | {"content": 0.05}, times=2, d=0.7) == 0.5
    assert "content is down to 0.05 (monitor_content=0.2)" in capsys.readouterr().out
    assert course.line(d=0.7, times=20) == 0.5  # an even game alone says nothing about content
    assert course.line(**WELL, times=2, kind="eval", d=0.7) == pytest.approx(0.55)


def test_a_bound_of_none_turns_a_check_off(tmp_path):
    off = {f"monitor_{check.statistic}": None for check in (*TROUBLES, *STOPS)}
    course = Course(tmp_path, **off)
    bad = {"copy_rate": 1.0, "repetition_rate": 1.0, "same_output": 1.0, "distinct_2": 0.0, "content": 0.0}
    assert course.line(d=1.0, **bad, times=10) == 1.0
    assert course.monitor.stop_reason is None


def test_the_scale_weighs_the_generators_side_of_the_game_alone(tmp_path):
    trainer = make_trainer(tmp_path, w_r1=0.2)
    terms = ("ce", "adv", "feat", "cls", "d_adv", "d_cls", "d_r1")
    before = {term: trainer._weight(term) for term in terms}
    trainer.monitor.adversary_scale = 0.25
    scaled = {"adv", "feat", "cls"}
    assert {t: trainer._weight(t) for t in terms} == {t: w * (0.25 if t in scaled else 1) for t, w in before.items()}


# Stopping


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"copy_rate": 0.95}, "copying: 95% of the samples are copies (monitor_copy_rate=0.9); raise"),
        ({"repetition_rate": 0.5}, "repetition: 50% of the samples' words repeat what stands just before them (mon"),
        ({"same_output": 0.8}, "collapse: 80% of the sources get one and the same output (monitor_same_output=0.5)"),
        ({"distinct_2": 0.05}, "collapse: only 5% of the samples' bigrams are different ones (monitor_distinct_2="),
    ],
)
def test_a_run_gone_wrong_is_stopped_with_a_reason_that_names_an_option(tmp_path, capsys, bad, reason):
    course = Course(tmp_path)
    course.line(**WELL | bad)
    course.line(**WELL)
    assert not course.control.should_training_stop
    course.line(**WELL | bad, times=2)
    assert course.control.should_training_stop
    assert course.monitor.stop_reason.startswith(reason)
    assert capsys.readouterr().out == f"Stopped at step 10: {course.monitor.stop_reason}.\n"


def test_every_option_that_is_named_is_there():
    options = {field.name for field in fields(StyleTrainingArguments)}
    named = [word for check in (*TROUBLES, *STOPS) for word in re.findall(r"\w+_\w+", check.remedy)]
    assert named
    assert set(named) | {f"monitor_{check.statistic}" for check in (*TROUBLES, *STOPS)} <= options


def test_samples_do_not_count_before_the_adversary_starts_or_outside_a_run(tmp_path):
    course = Course(tmp_path)
    course.state.global_step = 9
    course.line(**WELL | {"copy_rate": 1.0}, times=10)
    course.state.global_step = 10
    course.line(**WELL | {"copy_rate": 1.0})
    assert course.monitor.stop_reason is None
    course.monitor.on_train_end(course.args, course.state, course.control)
    course.line(**WELL | {"copy_rate": 1.0}, times=10)
    assert course.monitor.stop_reason is None


def copier(folder: Path, **options) -> StyleTrainer:
    """A trainer that learns to copy: each target is its source."""
    rows = toy_rows().map(lambda row: {"target": row["source"]})
    rows = rows.map(lambda row, i: {"style": "loud" if i % 2 else "calm"}, with_indices=True)
    copying = {"max_steps": 150, "per_device_train_batch_size": 16, "logging_steps": 50.0, "watch_steps": 10}
    return make_trainer(folder, rows=rows, gate_learning_rate=1e-2, **copying | options)


def test_a_run_that_learns_to_copy_ends_with_that_reason_and_what_it_has_saved(tmp_path):
    trainer = copier(tmp_path, save_strategy="steps", save_steps=10.0, adversary_fraction=0.0)
    result = trainer.train()
    assert result.global_step == trainer.state.global_step < 150
    assert trainer.stop_reason.startswith("copying: ")
    assert (tmp_path / f"checkpoint-{trainer.state.global_step}").is_dir()
    rates = [line["sample_copy_rate"] for line in trainer.state.log_history if "sample_copy_rate" in line]
    assert sum(rates[-3:]) / 3 > 0.9 >= sum(rates[-4:-1]) / 3
    going_on = copier(tmp_path, max_steps=trainer.state.global_step + 20, adversary_fraction=0.0)
    going_on.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{trainer.state.global_step}"))
    assert going_on.stop_reason is None  # it has its whole patience again
    assert going_on.state.global_step == trainer.state.global_step + 20


# Its state


def test_a_resumed_run_has_the_monitor_that_it_had(tmp_path):
    # D always wins, by this bound: the weight falls every two steps, and the steps after it differ.
    always = {"monitor_d_accuracy": 0.0, "monitor_patience": 2, "monitor_content": None, "w_adv": 5.0, "max_steps": 7}
    always |= {"watch_steps": 2, "watch_samples": 2, "save_strategy": "steps", "save_steps": 3.0}

    def sides(trainer: StyleTrainer) -> dict[str, torch.Tensor]:
        return adapter_weights(trainer.style_model) | discriminator_state(trainer.model)

    whole = make_trainer(tmp_path / "whole", **always)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", **always)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    unscaled = make_trainer(tmp_path / "unscaled", **always | {"monitor_d_accuracy": None})
    unscaled.train()
    assert resumed.adversary_scale == whole.adversary_scale == 0.125
    assert resumed.monitor.windows == whole.monitor.windows
    lines = [[line for line in run.state.log_history if "loss" in line] for run in (whole, resumed)]
    assert lines[0] == lines[1]  # looks at samples included
    assert all(torch.equal(tensor, sides(resumed)[name]) for name, tensor in sides(whole).items())
    assert any(not torch.equal(tensor, sides(unscaled)[name]) for name, tensor in sides(whole).items())


def test_a_new_run_of_the_same_trainer_begins_anew(tmp_path):
    trainer = make_trainer(tmp_path, monitor_d_accuracy=0.0, monitor_patience=1, max_steps=2)
    trainer.train()
    assert trainer.adversary_scale == 0.25
    trainer.train()
    assert trainer.adversary_scale == 0.25


def test_a_checkpoint_of_a_run_without_monitor_is_taken_up(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2.0, "max_steps": 4}
    bare = make_trainer(tmp_path, **options)
    bare.remove_callback(GameMonitor)
    bare.train()
    assert (bare.adversary_scale, bare.stop_reason) == (1.0, None)
    checkpoint = tmp_path / "checkpoint-2"
    assert "GameMonitor" not in json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))["stateful_callbacks"]
    trainer = make_trainer(tmp_path, **options)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    saved = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text("utf-8"))
    assert saved["stateful_callbacks"]["GameMonitor"]["attributes"]["adversary_scale"] == 1.0


def test_a_monitor_that_is_given_takes_the_place_of_the_trainers_own(tmp_path):
    class Strict(GameMonitor):
        """Stops at once."""

    own = Strict()
    trainer = make_trainer(tmp_path, callbacks=[own])
    assert trainer.monitor is own
    assert sum(isinstance(c, GameMonitor) for c in trainer.callback_handler.callbacks) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"monitor_floor": 0.0}, r"monitor_floor=0.0 must be in \(0, 1\]"),
        ({"monitor_copy_rate": 1.5}, r"monitor_copy_rate=1.5 must be in \[0, 1\]; null turns the check off"),
        ({"monitor_patience": 0}, "monitor_patience=0 must be >= 1"),
        ({"watch_samples": 0}, "watch_samples=0 must be >= 1"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **option)
