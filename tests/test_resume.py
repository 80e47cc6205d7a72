"""A run that is killed at any instant and taken up again ends, bit by bit, where one that was left alone ends."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from resume_worker import SCORES, build
from safetensors.torch import load_file
from training_fixtures import adapted, adapter_weights, make_trainer, toy_rows
from transformers import TrainerCallback

from style_adapter.trainer import StyleTrainer, discriminator_state, write_manifest
from style_adapter.trainer.manifest import MANIFEST, flaw_of

TESTS = Path(__file__).parent
TIMES = ("runtime", "per_second")
UNTIMED = ("seconds", "total_flos")


def sides(trainer: StyleTrainer) -> dict[str, torch.Tensor]:
    """Everything that training moves."""
    return {**adapter_weights(trainer.style_model), **discriminator_state(trainer.model)}


def timeless(value: Any) -> Any:
    """A log, or a state, without the times in it, and without the folder that it stands in."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not str(k).endswith(TIMES) and k not in UNTIMED}
    if isinstance(value, list):
        return [timeless(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and "checkpoint-" in value else value


def assert_same(found: Any, expected: Any, name: str = "") -> None:
    """Bitwise, at any depth."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), name
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key, value in expected.items():
            assert_same(found[key], value, f"{name}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), name
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, name)
    else:
        assert str(found) == str(expected), name  # str: NaN equals itself, and numpy's arrays are compared too


def contents(path: Path) -> Any:
    """What a file of a checkpoint holds."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, weights_only=False)
    return timeless(json.loads(path.read_text("utf-8")))


# Killed


def killed(folder: Path, *kills: str) -> Path:
    """A run that is killed at each instant of `kills`, and one beside it that is not."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(TESTS / "resume_worker.py"), str(folder), *kills]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    statuses = json.loads((folder / "statuses.json").read_text("utf-8"))
    assert (statuses.pop(""), statuses.pop("last")) == (0, 0), done.stderr[-4000:]
    assert set(statuses.values()) <= {0, -9}, (statuses, done.stderr[-4000:])  # an instant may come after the end
    assert -9 in statuses.values(), statuses
    return folder


def assert_equal_runs(found: Path, expected: Path) -> None:
    """The same files: what was kept in the end, the newest checkpoint with its optimizer, the log."""
    newest = max(SCORES)
    assert sorted(p.name for p in found.iterdir()) == sorted(p.name for p in expected.iterdir())
    names = ("adapter_model.safetensors", "discriminator.safetensors")
    moved = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "progress.json")
    for path in [f"final/{n}" for n in (*names, "found.json")] + [f"checkpoint-{newest}/{n}" for n in (*names, *moved)]:
        assert_same(contents(found / path), contents(expected / path), path)
    best = contents(found / "checkpoint-4" / names[0])
    assert_same(contents(found / "final" / names[0]), best)
    assert any(not torch.equal(t, best[n]) for n, t in contents(found / f"checkpoint-{newest}" / names[0]).items())


def test_a_run_killed_at_random_instants_ends_as_one_that_was_not(tmp_path):
    chance = random.Random()
    kills = [f"writes:{chance.randint(1, 28)}", f"seconds:{chance.uniform(0.5, 2):.2f}"]
    kills += [f"writes:{chance.randint(29, 45)}", "end"]
    print(kills)
    folder = killed(tmp_path / "run", *kills)
    assert_equal_runs(folder / "killed", folder / "whole")


@pytest.mark.slow
def test_a_run_killed_after_each_thing_it_does_to_the_disk_ends_as_one_that_was_not(tmp_path):
    kills = [f"writes:{number}" for number in range(1, 46)]
    folder = killed(tmp_path / "run", *kills)
    assert_equal_runs(folder / "killed", folder / "whole")


# Every checkpoint of every rhythm


class Copies(TrainerCallback):
    """Keeps the run's numbers at each save."""

    def __init__(self) -> None:
        self.saved: list[int] = []

    def on_save(self, args, state, control, **kwargs):
        assert flaw_of(Path(args.output_dir) / f"checkpoint-{state.global_step}") is None
        self.saved.append(state.global_step)


RHYTHMS: dict[str, tuple[dict[str, Any], list[int]]] = {
    # 4 steps an epoch, 10 in all; early stopping would act on the second evaluation without a better score
    "saves within and at the end of epochs": ({"save_steps": 2.0, "eval_steps": 2.0}, [2, 4, 6, 8]),
    "log lines far apart": (
        {"save_steps": 3.0, "logging_steps": 7.0, "eval_strategy": "no", "early_stopping_patience": 0},
        [3, 6, 9, 10],
    ),
    "evaluations of whole epochs, saves by steps": (
        {"save_steps": 2.0, "eval_strategy": "epoch", "early_stopping_patience": 0, "logging_strategy": "epoch"},
        [2, 4, 6, 8, 10],
    ),
    "epochs alone": ({"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"}, [4, 8, 10]),
    "every new best": ({"save_strategy": "best", "eval_steps": 2.0, "logging_steps": 5.0}, [2, 4]),
    "a rate that follows the score": (
        {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0}, "save_steps": 2.0},
        [2, 4, 6, 8],
    ),
    "a watched game": (
        {
            "save_steps": 3.0,
            "eval_steps": 5.0,
            "early_stopping_patience": 0,
            "watch_steps": 2,
            "watch_samples": 2,
            "term_gradient_steps": 4,
            "monitor_patience": 2,
            "monitor_d_accuracy": 0.1,  # D wins always: the adversary's weight goes down
            "monitor_same_output": None,
            "monitor_distinct_2": None,
            "monitor_repetition_rate": None,
        },
        [3, 6, 9, 10],
    ),
    "unpaired texts, sampled and old fakes, steps of the discriminator alone": (
        {
            "rows": toy_rows().rename_column("target", "text").remove_columns("source"),
            "estimator": "reinforce",
            "w_feat": 0.0,
            "w_cls": 0.0,
            "sampling_length": 4,
            "replay_size": 4,
            "replay_fraction": 0.5,
            "instance_noise": 0.1,
            "discriminator_steps": 2,
            "feature_store": "memory",
            "save_steps": 3.0,
            "eval_strategy": "no",
            "early_stopping_patience": 0,
        },
        [3, 6, 9, 10],
    ),
}


SLOW = ("log lines far apart", "epochs alone", "a rate that follows the score")


@pytest.mark.parametrize("rhythm", [pytest.param(r, marks=pytest.mark.slow) if r in SLOW else r for r in RHYTHMS])
def test_from_each_checkpoint_a_run_goes_on_as_it_did(tmp_path, rhythm):
    options, steps = RHYTHMS[rhythm]
    options = {"max_steps": 10, "save_total_limit": None, "load_best_model_at_end": False} | options
    options |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    copies = Copies()
    whole = build(tmp_path, measures=False, callbacks=[copies], **options)
    expected = whole.train(resume_from_checkpoint=False)
    assert copies.saved == steps
    for step in steps:
        resumed = build(tmp_path / str(step), measures=False, **options)
        found = resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert_same(timeless(resumed.state.log_history), timeless(whole.state.log_history), f"log of {step}")
        assert_same(sides(resumed), sides(whole), f"weights of {step}")
        assert (found.global_step, found.training_loss) == (expected.global_step, expected.training_loss)
        assert_same(resumed.optimizer.state_dict(), whole.optimizer.state_dict(), f"optimizer of {step}")


def test_a_run_that_has_ended_goes_on_when_it_gets_more_steps_or_other_options(tmp_path):
    def run(**options: Any) -> int:
        trainer = build(tmp_path, measures=False, **options)
        trainer.train()
        return trainer.state.global_step

    assert run() == 8  # early stopping
    assert run() == 8
    assert run(early_stopping_patience=0, restore_callback_states_from_checkpoint=False) == 14
    assert run(early_stopping_patience=0, max_steps=16) == 16


# What is taken up


def test_true_takes_the_newest_whole_one_and_names_what_is_broken(tmp_path, capsys):
    options = {"save_strategy": "steps", "save_steps": 1.0, "max_steps": 3, "resume_from_checkpoint": True}

    def train(**more: Any) -> list[float]:
        trainer = make_trainer(tmp_path, **options | more)
        trainer.train()
        return [line["step"] for line in trainer.state.log_history if "loss" in line]

    assert train() == [1, 2, 3]
    assert f"No whole checkpoint in {tmp_path}: a fresh start" in capsys.readouterr().out
    (tmp_path / "checkpoint-3" / "optimizer.pt").write_bytes(b"cut")
    broken = r"passed over in .*: checkpoint-3 has optimizer.pt with 3 bytes instead of \d+"
    with pytest.warns(UserWarning, match=broken) as seen:
        assert train() == [1, 2, 3]
    assert sum("passed over" in str(warning.message) for warning in seen) == 1
    assert f"Going on from {tmp_path / 'checkpoint-2'}" in capsys.readouterr().out
    assert flaw_of(tmp_path / "checkpoint-3") is None  # written again
    assert train(resume_from_checkpoint=None) == [1, 2, 3]
    assert "Going on" not in capsys.readouterr().out


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2.0, max_steps=2)
    trainer.train()
    folder = tmp_path / "checkpoint-2"
    (folder / MANIFEST).rename(folder / "kept")
    with pytest.raises(ValueError, match=r"has no manifest.json and must be .*write_manifest\(folder\) says so"):
        trainer.train(resume_from_checkpoint=str(folder))
    (folder / "kept").rename(folder / MANIFEST)
    (folder / "scheduler.pt").unlink()
    with pytest.raises(
        ValueError, match=r"lacks scheduler.pt and must be a whole checkpoint; give True for the newest"
    ):
        trainer.train(resume_from_checkpoint=str(folder))
    with pytest.raises(ValueError, match=r"checkpoint-7' is no folder and must be a whole"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))


def test_a_checkpoint_without_manifest_or_progress_goes_on_once_it_is_vouched_for(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2.0, "max_steps": 4}
    whole = make_trainer(tmp_path, model=adapted(), **options)
    whole.train()
    folder = tmp_path / "checkpoint-2"
    (folder / MANIFEST).unlink()
    (folder / "progress.json").unlink()
    write_manifest(folder)
    resumed = make_trainer(tmp_path, model=adapted(seed=3), **options)
    resumed.train(resume_from_checkpoint=str(folder))
    assert_same(sides(resumed), sides(whole))


def test_a_save_that_is_cut_off_leaves_the_older_one_even_with_a_limit_of_one(tmp_path, monkeypatch):
    options = {"save_strategy": "steps", "save_steps": 1.0, "max_steps": 3, "save_total_limit": 1}
    trainer = make_trainer(tmp_path, **options)

    def cut_off(folder: str) -> None:
        raise OSError("the disk is full")

    class Cut(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                monkeypatch.setattr(StyleTrainer, "_save_rng_state", lambda self, folder: cut_off(folder))

    trainer.add_callback(Cut())
    with pytest.raises(OSError, match="the disk is full"):
        trainer.train()
    assert {p.name: flaw_of(p) for p in tmp_path.glob("checkpoint-*")} == {
        "checkpoint-2": None,
        "checkpoint-3": "has no manifest.json",
    }
