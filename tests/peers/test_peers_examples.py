"""The runnable examples: each trains or draws what it says, on its tiny backbone."""

import importlib

import pytest
import torch
from peers_fixtures import peer

pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning"),  # TRL's default
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
]

SAID = {"loud": ["HELLO", "THANKS", "GOODBYE", "YES"], "calm": ["hi", "cheers", "bye", "ok"]}


@pytest.fixture(autouse=True)
def _runs_go_to_the_tests_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def example(name, *needs):
    for package in needs:
        peer(package)
    return importlib.import_module(name).main


@pytest.mark.parametrize(("name", "needs"), [("trl_sft", ["trl"]), ("transformers_trainer", [])])
def test_trained_rows_answer_in_the_style_of_their_column(name, needs):
    assert example(name, *needs)(["--max_steps", "40"]) == SAID


def test_preferences_are_learnt_in_each_style():
    accuracies = example("trl_dpo", "trl")(["--max_steps", "30"])
    assert accuracies[-1] > 0.95 > accuracies[0]


def test_an_encoder_learns_each_style_from_the_data_set_of_its_name():
    found = example("sentence_encoder", "sentence_transformers")(["--max_steps", "40"])
    assert all(cosines.min() > 0.5 for cosines in found.values())


def test_a_pipeline_writes_each_prompt_in_its_style():
    said = example("text_pipeline")([])
    assert said["loud"] != said["calm"]
    assert said["one a prompt"] == [said["loud"][0], said["calm"][1], said["loud"][2], said["calm"][3]]


def test_drawings_differ_by_style_and_come_back_from_disk():
    images = example("diffusers_dit", "diffusers")([])
    assert torch.equal(images["read again"], images["['ink', 'oil']"])
    assert (images["ink"] - images["oil"]).abs().max() > 1e-3


def test_a_metric_scores_each_style():
    scores = example("evaluate_metrics", "evaluate")([])
    assert set(scores) == {"loud", "calm"}
    assert all(0 <= score["exact_match"] <= 1 for score in scores.values())


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter in the checkpoint:UserWarning")
def test_an_offloaded_backbone_says_what_the_whole_one_says():
    said = example("offloaded")([])
    assert said["offloaded"] == said["whole"]


def test_an_int8_backbone_trains_the_adapter():
    losses = example("torchao_int8", "torchao")(["--max_steps", "20"])
    assert losses[-1] < losses[0] / 2
