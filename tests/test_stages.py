"""A run with rounds of self-training: killed at any stage and taken up, it ends where one that was left alone ends."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pile_fixtures import options, save_piles
from safetensors.torch import load_file
from test_resume import assert_same, contents

from style_adapter import StyleTrainer, training
from style_adapter.recipe import Recipe, load_recipe
from style_adapter.stages import Stage, stages_of
from style_adapter.teacher import Halves
from style_adapter.trainer import write_manifest
from style_adapter.training import Texts, run

pytestmark = pytest.mark.usefixtures("no_cache_at_home")

ENDS = ("adapter_model.safetensors", "discriminator.safetensors", "trainer_state.json")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a backbone and two piles."""
    save_piles(tmp_path)
    return tmp_path


def recipe(folder: Path, **more: Any) -> Recipe:
    """Two steps on the teacher's pairs, and two rounds of a few texts."""
    given = {"rounds": 2, "round_rows": 6, "round_samples": 2, "round_epochs": 1.0, "max_train_rows": 16}
    given["round_preference"] = 0.5
    given |= {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "no", "save_total_limit": None}
    return load_recipe(None, options(folder, **given | more))


class Killed(BaseException):
    """Nothing that is written after it counts."""


def killed_at(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Makes the `call`-th call of `owner.name` end the run before it does anything."""
    work, left = getattr(owner, name), [call]

    def or_die(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise Killed
        return work(*args, **kwargs)

    patch.setattr(owner, name, or_die)


# Where each session of one run is killed, in this order, and the stages that are trained in it.
KILLS: list[tuple[tuple[Any, str, int], list[str]]] = [
    ((os, "replace", 1), []),  # the teacher's pairs are written, and do not count yet
    ((StyleTrainer, "training_step", 2), ["round-0"]),
    (("style_adapter.stages", "write_manifest", 1), ["round-0"]),  # an adapter that nothing vouches for
    ((training, "best_pairs", 1), ["round-0"]),
    ((StyleTrainer, "training_step", 2), ["round-1"]),
    ((training, "best_pairs", 1), ["round-1"]),
    ((training, "write_report", 1), ["round-2"]),  # all but the last lines
]


def session(patch: pytest.MonkeyPatch, given: Recipe) -> list[str]:
    """Runs it; the stages that it trains."""
    trained, train = [], StyleTrainer.train

    def noted(trainer: StyleTrainer, *args: Any, **kwargs: Any) -> Any:
        trained.append(Path(str(trainer.args.output_dir)).name)
        return train(trainer, *args, **kwargs)

    with patch.context() as own:
        own.setattr(StyleTrainer, "train", noted)
        try:
            run(given)
        except Killed:
            trained.append("killed")
    return trained


def test_a_run_killed_at_every_stage_ends_as_one_that_was_not(folder, monkeypatch):
    assert session(monkeypatch, recipe(folder, output_dir=str(folder / "whole"))) == ["round-0", "round-1", "round-2"]
    again = recipe(folder, output_dir=str(folder / "killed"), resume_from_checkpoint=True)
    for (owner, name, call), stages in KILLS:
        with monkeypatch.context() as patch:
            target = __import__(owner, fromlist=["x"]) if isinstance(owner, str) else owner
            killed_at(patch, target, name, call)
            assert session(patch, again) == [*stages, "killed"]
    assert session(monkeypatch, again) == []  # all stages have ended, and are not run again
    for name in (*ENDS, *(f"round-{n}/adapter/{end}" for n in range(3) for end in ENDS)):
        assert_same(contents(folder / "killed" / name), contents(folder / "whole" / name), name)
    for n in range(3):
        assert_same_rows(folder / "killed", folder / "whole", n)
    first, last = (load_file(folder / "whole" / where / ENDS[0]) for where in ("round-0/adapter", "."))
    assert any(not torch.equal(tensor, first[name]) for name, tensor in last.items())


def assert_same_rows(found: Path, expected: Path, number: int) -> None:
    """The same file of pairs."""
    one, other = (folder / f"round-{number}" / "pairs.jsonl" for folder in (found, expected))
    assert one.read_bytes() == other.read_bytes()
    rows = [json.loads(line) for line in one.read_text("utf-8").splitlines()]
    assert rows[0].keys() == {"source", "target", "style", "synthetic"} | ({"rejected"} if number else set())


def test_a_round_draws_on_texts_that_the_evidence_has_not_heard_after_those_of_earlier_stages(folder, monkeypatch):
    given, asked = recipe(folder, resume_from_checkpoint=True), []
    texts = Texts.of(given)
    unheard, _ = texts.halves.unheard(0, 100)

    def best(model, tokenizer, texts, styles, **options):
        asked.append(texts)
        return [{"source": text, "target": text, "style": style} for text, style in zip(texts, styles, strict=True)]

    monkeypatch.setattr(training, "best_pairs", best)
    monkeypatch.setattr(Halves, "pairs", lambda halves, count: asked.append(halves.unheard(0, count)[0]) or [])
    model, tokenizer = training.build(given, texts.rows)
    for number in range(3):
        training._pairs(Stage(number, given), texts.halves, model, tokenizer)
    assert [len(part) for part in asked] == [11, 6, 6]
    assert [text for part in asked for text in part] == unheard[:23]


# Stages


def ended(folder: Path, *numbers: int) -> None:
    """Stages of a run in `folder` that have ended."""
    for number in numbers:
        adapter = folder / "out" / f"round-{number}" / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_bytes(b"x")
        write_manifest(adapter)


@pytest.mark.parametrize(
    ("done", "left"),
    [
        ([], [(0, None), (1, "round-0"), (2, "round-1")]),
        ([0], [(1, "round-0"), (2, "round-1")]),
        ([0, 1], [(2, "round-1")]),
        ([0, 1, 2], [(2, "round-2")]),  # to be reported once more
        ([1, 2], [(0, None), (1, "round-0"), (2, "round-1")]),
    ],
)
def test_what_is_left_of_a_run_begins_where_the_last_stage_that_ended_did(tmp_path, done, left):
    ended(tmp_path, *done)
    stages = stages_of(recipe(tmp_path, resume_from_checkpoint=True))
    assert [(stage.number, stage.start and Path(stage.start).parent.name) for stage in stages] == left
    assert [stage.ended for stage in stages] == [done == [0, 1, 2]] * len(stages)


def test_a_run_that_is_not_resumed_is_refused_the_folder_of_an_earlier_one_and_deletes_nothing(tmp_path):
    for other in ("checkpoint-3", "round-x", "round-1b"):
        (tmp_path / "out" / other).mkdir(parents=True)
    assert len(stages_of(recipe(tmp_path))) == 3
    ended(tmp_path, 1, 0)
    message = r"output_dir='.*out' has round-0, round-1 of an earlier run and must have no stages where "
    with pytest.raises(ValueError, match=message):
        stages_of(recipe(tmp_path))
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert [stage.number for stage in stages_of(recipe(tmp_path, rounds=0))] == [0]  # nothing of it is in the way


def test_a_round_is_slower_shorter_and_plays_at_once(tmp_path):
    given = recipe(tmp_path, learning_rate=1e-3, gate_learning_rate=4e-3, round_rate=0.25, push_to_hub=True)
    first, second = (Stage(number, given).recipe.training for number in (0, 1))
    names = ("learning_rate", "gate_learning_rate", "max_steps", "num_train_epochs", "adversary_start")
    assert [getattr(first, name) for name in names] == [getattr(given.training, name) for name in names]
    assert [getattr(second, name) for name in names] == [2.5e-4, 1e-3, -1, 1.0, 0]
    assert [Path(args.output_dir).name for args in (first, second)] == ["round-0", "round-1"]
    assert [args.push_to_hub for args in (given.training, first, second)] == [True, False, False]
    assert (second.w_adv, second.seed) == (given.training.w_adv, given.training.seed)
    assert (first.w_pref, second.w_pref) == (0.0, 0.5)


# Mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"teacher": "none"},
            "rounds=2 must be 0 where teacher='none': the teacher's score tells which draft is best;",
        ),
        ({"resume_from_checkpoint": "out/checkpoint-1"}, "'out/checkpoint-1' must be true where rounds=2: each stage"),
        ({"rounds": -1}, "rounds=-1 must be >= 0; correct it in the recipe"),
        ({"round_epochs": 0}, "round_epochs=0.0 must be > 0; correct it in the recipe"),
    ],
)
def test_rounds_that_could_not_be_carried_out_are_refused(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, **given)


@pytest.mark.parametrize("way", ["is_fsdp_enabled", "is_deepspeed_zero3_enabled"])
def test_rounds_are_refused_where_a_process_has_no_weights_to_write_with(tmp_path, monkeypatch, way):
    monkeypatch.setattr(f"style_adapter.stages.{way}", lambda: True)
    with pytest.raises(ValueError, match="rounds=2 must be 0 under ZeRO-3 and with fsdp_cpu_ram_efficient_loading"):
        stages_of(recipe(tmp_path))
    assert len(stages_of(recipe(tmp_path, rounds=0))) == 1


def test_a_round_in_which_no_rewrite_is_good_enough_ends_the_run_with_the_remedy(folder, monkeypatch):
    monkeypatch.setattr(training, "best_pairs", lambda *args, **options: [])
    with pytest.raises(ValueError, match=r"round_rows=6 gave no pair, since no rewrite scores above 0; .* rounds=0"):
        run(recipe(folder, rounds=1))
