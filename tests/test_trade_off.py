"""Benchmarks of a trained adapter: each number is what the parts say by themselves."""

import json
import sys
from dataclasses import replace

import pytest
import strength
import torch
import trained
from training_fixtures import adapted, byte_tokenizer, llama, make_trainer, randomised, toy_rows, trained_toy

from style_adapter import OFF, StyleJudge, transfer, write_report
from style_adapter.metrics import score_transfer

ROWS, KNOWN = toy_rows(["mn", "op"]), toy_rows()


@pytest.fixture
def trial(tmp_path) -> strength.Trial:
    model = trained_toy(tmp_path).style_model
    return strength.Trial("toy", model, byte_tokenizer(), ROWS, StyleJudge.fit(KNOWN["target"], KNOWN["style"]))


def plain_scores(trial: strength.Trial, styles) -> dict:
    """What `transfer` and `score_transfer` say."""
    texts = transfer(trial.model, trial.tokenizer, ROWS["source"], styles)
    found = score_transfer(texts, ROWS["source"], ROWS["target"], ROWS["style"], judge=trial.judge)
    return {style: score.to_dict() for style, score in found.items()}


@pytest.mark.parametrize(("factor", "styles"), [(0.0, OFF), (1.0, ROWS["style"]), (0.5, None)])
def test_a_strength_multiplies_each_rows_style(trial, factor, styles):
    wanted = plain_scores(trial, [factor * trial.model.styles[s] for s in ROWS["style"]] if styles is None else styles)
    found = trial.at(factor)
    assert found["strength"] == factor
    for style, numbers in wanted.items():
        assert {name: found[style][name] for name in numbers} == numbers
    for number in strength.SHOWN:
        assert found["overall"][number] == pytest.approx((found["loud"][number] + found["calm"][number]) / 2)


def test_what_was_learnt_by_heart_beats_strength_zero_and_copies_and_references_are_right(trial):
    trial = replace(trial, rows=KNOWN)
    off, on = trial.at(0.0)["overall"], trial.at(1.0)["overall"]
    copied = trial.of("copied input", KNOWN["source"])["overall"]
    right = trial.of("references", KNOWN["target"])["overall"]
    assert right["style_accuracy"] == right["content"] == 1.0
    assert on["joint"] > max(off["joint"], copied["joint"])


def test_the_command_keeps_a_cell_a_strength_and_a_peer(tmp_path, monkeypatch, capsys):
    llama().save_pretrained(tmp_path / "base")
    model = randomised(adapted()).eval()
    model.save_pretrained(tmp_path / "toy")
    byte_tokenizer().save_pretrained(tmp_path / "toy")
    ROWS.to_json(tmp_path / "rows.jsonl")
    KNOWN.to_json(tmp_path / "known.jsonl")
    (tmp_path / "theirs.txt").write_text("MN!\nmn.\nOP!\nop.\n", "utf-8")
    monkeypatch.setattr(strength, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(strength, "STRENGTHS", (0.0, 1.0))
    words = [
        "strength.py",
        "--adapter",
        tmp_path / "toy",
        "--base",
        tmp_path / "base",
        "--data",
        tmp_path / "rows.jsonl",
    ]
    words += ["--judge-data", tmp_path / "known.jsonl", "--peer", f"theirs={tmp_path / 'theirs.txt'}"]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    strength.main()
    names = ["toy, strength 0.0", "toy, strength 1.0", "toy, copied input", "toy, references", "toy, theirs"]
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in (tmp_path / "results" / "strength").iterdir()}
    assert set(kept) == set(names)
    assert kept["toy, theirs"]["results"]["overall"]["content"] == 1.0
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| toy")]
    assert rows == names


def test_rows_that_the_judge_knows_and_peers_of_other_lengths_are_refused(tmp_path):
    ROWS.to_json(tmp_path / "rows.jsonl")
    (tmp_path / "theirs.txt").write_text("MN!\nmn.\n", "utf-8")
    file = str(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="judge_data holds 4 of the lines of data and must hold none; split the file"):
        strength.rows_and_judge(file, file)
    with pytest.raises(ValueError, match=r"data=.*rows\.jsonl' and judge_data=None must be given together"):
        strength.rows_and_judge(file, None)
    with pytest.raises(ValueError, match="peer 'theirs' has 2 lines and must have 4, one a row"):
        strength.read_peers([f"theirs={tmp_path / 'theirs.txt'}"], ROWS)


def test_a_portrait_holds_the_runs_evaluations_and_the_tables_of_its_adapter(tmp_path):
    llama().save_pretrained(tmp_path / "base")
    options = {"eval_strategy": "steps", "eval_steps": 1.0, "eval_samples": 4, "max_steps": 2}
    trainer = make_trainer(tmp_path / "run", eval_dataset=toy_rows(["mn", "op"]), **options)
    trainer.train()
    trainer.save_model()
    write_report(trainer, recipe={})
    found = trained.portrait(tmp_path / "run", str(tmp_path / "base"))
    assert [line["step"] for line in found["history"]] == [1, 2]
    tables = {n: p for n, p in trainer.style_model.named_parameters() if ".style_adapter_gate." in n}
    for row, style in enumerate(("loud", "calm")):
        assert len(found["gates"][style]) == len(tables)
        for layer, gate in found["gates"][style].items():
            table = tables[f"base_model.model.{layer}.style_adapter_gate.default.weight"]
            torch.testing.assert_close(torch.tensor(gate), table[row].detach(), atol=5.1e-4, rtol=0)
    assert [line.split("|")[2].strip() for line in trained.report({"run": found}).splitlines()[2:]] == ["1", "2"]
