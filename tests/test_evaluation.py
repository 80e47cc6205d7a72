"""The table before and after: its rows are the copy, the frozen backbone and the adapter, on the same texts."""

import json

import pytest
from training_fixtures import toy_rows, trained_toy

from style_adapter import OFF
from style_adapter.evaluation import before_after
from style_adapter.metrics import StyleJudge, score_transfer
from style_adapter.pipeline import transfer


@pytest.fixture
def found(tmp_path_factory):
    """A toy evaluated, and its trainer."""
    trainer = trained_toy(tmp_path_factory.mktemp("trained"))
    rows = toy_rows()
    judge = StyleJudge.fit(["XY!", "ZU!", "W!", "xy.", "zu.", "w."], ["loud"] * 3 + ["calm"] * 3)
    return trainer, rows, judge, before_after(trainer.style_model, trainer.processing_class, rows, judge=judge)


def test_the_rows_are_the_copy_the_backbone_and_the_adapter(found):
    trainer, rows, judge, evaluation = found
    model, tokenizer = trainer.style_model, trainer.processing_class
    assert evaluation.outputs["copy"] == list(rows["source"])
    assert evaluation.outputs["before"] == transfer(model, tokenizer, rows["source"], OFF)
    assert evaluation.outputs["after"] == list(rows["target"])
    for name, outputs in evaluation.outputs.items():
        expected = score_transfer(outputs, list(rows["source"]), list(rows["target"]), list(rows["style"]), judge=judge)
        assert evaluation.scores[name] == expected
    assert evaluation.outputs["before"] != evaluation.outputs["after"]
    assert evaluation.scores["after"]["loud"].style_accuracy == 1.0


def test_the_table_and_the_file_show_the_scores(found, tmp_path):
    *_, evaluation = found
    lines = [line for line in evaluation.table().splitlines() if "| loud" in line]
    assert [line.split("|")[2].strip() for line in lines] == ["copy", "before", "after"]
    evaluation.save(tmp_path / "scores.json")
    saved = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert saved == evaluation.to_dict()
    assert saved["after"]["loud"]["style_accuracy"] == 1.0
