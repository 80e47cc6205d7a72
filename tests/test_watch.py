"""Watching a run: it changes no bit of it, its numbers are those of the texts, and a person can read them."""

import sys

import datasets
import pytest
import torch
from training_fixtures import (
    adapted,
    adapter_weights,
    byte_tokenizer,
    llama_classifier,
    make_trainer,
    toy_rows,
)
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

from style_adapter import StyleTrainer
from style_adapter.inference import transfer
from style_adapter.metrics import SampleReport, StyleJudge
from style_adapter.trainer import discriminator_state
from style_adapter.trainer.terminal import sample_lines

STATISTICS = ("style_accuracy", "copy_rate", "repetition_rate", "distinct_2", "same_output", "content", "length_ratio")


def sides(trainer: StyleTrainer) -> dict[str, torch.Tensor]:
    """A copy of everything that training moves."""
    return {
        n: t.clone() for n, t in (adapter_weights(trainer.style_model) | discriminator_state(trainer.model)).items()
    }


def assert_equal(one: dict, other: dict) -> None:
    """Bitwise."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def sampled(trainer: StyleTrainer) -> dict[int, dict[str, float]]:
    """The sample statistics by step."""
    lines = [line for line in trainer.state.log_history if "sample_distinct_2" in line]
    return {n["step"]: {k.removeprefix("sample_"): v for k, v in n.items() if k.startswith("sample_")} for n in lines}


# Looking


def test_watching_and_evaluating_change_no_bit_of_the_run(tmp_path):
    def run(**options) -> StyleTrainer:
        model = adapted(dropout=0.2, noise_dim=2)
        options |= {"max_steps": 6, "per_device_train_batch_size": 4, "monitor_content": None}  # which steers
        trainer = make_trainer(tmp_path, model=model, **options)
        torch.manual_seed(1)
        trainer.train()
        return trainer

    plain = run(watch_steps=0)
    watched = run(
        watch_steps=1, watch_samples=2, term_gradient_steps=1, eval_dataset=toy_rows(["mn"]), eval_strategy="epoch"
    )
    assert list(sampled(watched)) == [1, 2, 3, 4, 5, 6]
    assert sampled(plain) == {}
    assert_equal(sides(plain), sides(watched))
    names = ("loss", "loss_ce", "loss_adv", "loss_d_adv", "grad_norm", "d_accuracy_fake")
    for name in names:
        values = [[line[name] for line in t.state.log_history if name in line] for t in (plain, watched)]
        assert values[0] == values[1], name


@pytest.mark.parametrize("held_out", [toy_rows(["mn", "op", "qr"]), None], ids=["evaluation rows", "training rows"])
def test_statistics_are_those_of_greedy_rewrites(tmp_path, held_out):
    trainer = make_trainer(tmp_path, eval_dataset=held_out, watch_steps=2, watch_samples=100, max_steps=2)
    trainer.train()
    rows = toy_rows() if held_out is None else held_out
    outputs = transfer(trainer.style_model, byte_tokenizer(), rows["source"], rows["style"])
    judge = StyleJudge.fit(toy_rows()["target"], toy_rows()["style"])
    expected = SampleReport.of(outputs, list(rows["source"]), list(rows["style"]), judge=judge).to_dict()
    assert sampled(trainer) == {2: pytest.approx(expected)}
    assert expected.keys() == set(STATISTICS)


def test_every_look_is_at_the_same_rows_and_has_its_own_line(tmp_path, monkeypatch):
    seen = []
    trainer = make_trainer(tmp_path, logging_steps=100.0, watch_steps=2, watch_samples=3, max_steps=5)
    predict = type(trainer)._predictions
    monkeypatch.setattr(
        StyleTrainer,
        "_predictions",
        lambda self, rows, task: (seen.append(rows["source"][:]), predict(self, rows, task))[1],
    )
    trainer.train()
    assert list(sampled(trainer)) == [2, 4]
    assert len(seen[0]) == 3
    assert seen[0] == seen[1]


def test_an_evaluation_has_the_statistics_of_all_its_rewrites(tmp_path):
    rows = toy_rows(["mn", "op"])
    trainer = make_trainer(tmp_path, eval_dataset=rows)
    metrics = trainer.evaluate()
    outputs = transfer(trainer.style_model, byte_tokenizer(), rows["source"], rows["style"])
    report = SampleReport.of(outputs, list(rows["source"]), list(rows["style"]), judge=trainer.setting.judge)
    assert {name: metrics[f"eval_{name}"] for name in STATISTICS} == report.to_dict()


def test_unpaired_texts_are_watched_in_the_style_that_they_are_not_in(tmp_path, capsys):
    rows = datasets.Dataset.from_dict({"text": ["ab!", "cd!", "ef.", "gh."], "style": ["loud"] * 2 + ["calm"] * 2})
    trainer = make_trainer(tmp_path, rows=rows, watch_steps=1, watch_samples=4, max_steps=1)
    trainer.train()
    styles = ["calm"] * 2 + ["loud"] * 2
    outputs = transfer(trainer.style_model, byte_tokenizer(), rows["text"], styles)
    judge = StyleJudge.fit(rows["text"], rows["style"])
    expected = SampleReport.of(outputs, list(rows["text"]), styles, judge=judge)
    assert sampled(trainer) == {1: pytest.approx(expected.to_dict())}
    assert "  calm  right  ab! -> " in capsys.readouterr().out.replace("wrong", "right")


def test_texts_written_from_nothing_are_watched_without_sources(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["ab!", "cd!", "ef.", "gh."], "style": ["loud"] * 2 + ["calm"] * 2})
    options = {"task": "generation", "watch_steps": 1, "eval_max_new_tokens": 4, "max_steps": 2}
    trainer = make_trainer(tmp_path, model=adapted(noise_dim=2), rows=rows, **options)
    trainer.train()
    looks = sampled(trainer)
    assert list(looks) == [1, 2]
    assert looks[1].keys() == set(STATISTICS) - {"copy_rate", "content", "length_ratio"}


def test_samples_of_one_style_are_watched_without_a_judge(tmp_path):
    rows = toy_rows().filter(lambda row: row["style"] == "loud")
    trainer = make_trainer(tmp_path, rows=rows, watch_steps=1, watch_samples=2, max_steps=1)
    trainer.train()
    assert sampled(trainer)[1].keys() == set(STATISTICS) - {"style_accuracy"}


def test_without_the_extra_one_warning_says_what_to_do_and_training_goes_on(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, watch_steps=1, watch_samples=1, max_steps=3)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.warns(UserWarning, match="pip install 'style_adapter.eval.'; or set watch_steps=0") as caught:
        trainer.train()
    assert len(caught) == 1
    assert trainer.state.global_step == 3
    assert sampled(trainer) == {}


def test_a_classifier_has_no_samples(tmp_path):
    model = adapted(llama_classifier(num_labels=2), task_type="SEQ_CLS")
    rows = toy_rows().map(lambda row: {"text": row["source"], "label": int(row["style"] == "loud")})
    trainer = make_trainer(tmp_path, model=model, rows=rows, task="classification", watch_steps=1, max_steps=1)
    trainer.train()
    assert sampled(trainer) == {}


def test_every_number_of_the_game_reaches_the_trackers(tmp_path):
    lines = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            lines.append(dict(logs))

    looks = {"watch_steps": 2, "watch_samples": 2, "term_gradient_steps": 2, "max_steps": 2}
    make_trainer(tmp_path, callbacks=[Tracker()], **looks).train()
    terms = ("ce", "adv", "feat", "cls", "d_adv", "d_cls")
    expected = {f"{kind}_{term}" for kind in ("loss", "grad_norm") for term in terms}
    expected |= {f"sample_{name}" for name in STATISTICS} | {"d_accuracy_real", "d_accuracy_fake", "grad_norm"}
    expected |= {"d_grad_norm", "learning_rate", "d_learning_rate", "adversary_scale"}
    assert expected <= lines[1].keys()
    assert all(isinstance(value, (int, float)) for line in lines for value in line.values())  # others are left out


# The terminal


def test_lines_samples_and_the_end_of_a_run_are_printed_in_place_of_dicts(tmp_path, capsys):
    rows = toy_rows(["mn", "op", "qr"])
    options = {"eval_dataset": rows, "watch_steps": 2, "watch_samples": 6, "eval_strategy": "steps", "eval_steps": 2.0}
    trainer = make_trainer(tmp_path, max_steps=2, **options)
    trainer.train()
    lines = capsys.readouterr().out.splitlines()
    outputs = transfer(trainer.style_model, byte_tokenizer(), rows["source"], rows["style"])
    right = [
        judged == style for judged, style in zip(trainer.setting.judge.predict(outputs), rows["style"], strict=True)
    ]
    samples = sample_lines(outputs[:4], rows["source"][:4], rows["style"][:4], right[:4]).splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["step 1/2", "step 2/2"]
    assert "  style " in lines[1]
    assert "  style " not in lines[0]
    assert lines[2:6] == samples
    assert lines[6].startswith("eval 2/2  loss ")
    assert "  J " in lines[6]
    assert [line.split("  J ")[0].strip() for line in lines[7:9]] == ["to loud", "to calm"]
    assert lines[9:13] == samples
    assert lines[13].startswith("done after 2 steps  0 min ")
    assert not any("{" in line for line in (*lines[:2], *lines[6:9], lines[13]))
    assert len(lines) == 14


def test_a_high_log_level_and_a_removed_printer_are_silent(tmp_path, capsys):
    verbosity = logging.get_verbosity()
    make_trainer(tmp_path, max_steps=1, watch_steps=1, watch_samples=1, log_level="error").train()
    logging.set_verbosity(verbosity)  # Trainer sets it for all
    assert capsys.readouterr().out == ""
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    assert capsys.readouterr().out == ""


def test_another_process_is_silent(tmp_path, capsys):
    trainer = make_trainer(tmp_path, max_steps=1, watch_steps=1, watch_samples=1)
    trainer.is_world_process_zero = lambda: False
    trainer.train()
    assert capsys.readouterr().out == ""


# Early stopping on J


def test_early_stopping_keeps_the_checkpoint_with_the_best_joint_score(tmp_path):
    rows = toy_rows()
    options = {"eval_strategy": "steps", "eval_steps": 10.0, "save_strategy": "steps", "save_steps": 10.0}
    options |= {"load_best_model_at_end": True, "early_stopping_patience": 2, "logging_steps": 50.0, "watch_steps": 0}
    trainer = make_trainer(
        tmp_path, eval_dataset=rows, max_steps=400, per_device_train_batch_size=16, learning_rate=2e-2, **options
    )
    trainer.train()
    scores = {n["step"]: n["eval_style_score"] for n in trainer.state.log_history if "eval_style_score" in n}
    best = max(scores.values())
    assert trainer.state.global_step < 400  # J of a toy learnt by heart grows no more
    assert trainer.state.global_step == 10 * len(scores)
    assert trainer.state.best_metric == best > min(scores.values())
    assert trainer.state.best_model_checkpoint.endswith(f"-{min(s for s, v in scores.items() if v == best)}")
    assert trainer.evaluate()["eval_style_score"] == pytest.approx(best)
