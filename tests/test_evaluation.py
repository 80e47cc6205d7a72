"""The table before and after: its rows on the same texts, its numbers those of the functions, and whom it refuses."""

import json

import datasets
import numpy as np
import pytest
import sacrebleu
from training_fixtures import adapted, byte_tokenizer, llama, make_trainer, toy_rows, trained_toy

from style_adapter import OFF, StyleTransferEvaluator
from style_adapter.fluency import BackboneScorer
from style_adapter.inference import transfer
from style_adapter.metrics import StyleJudge, joint_report, line_hashes, score_transfer

UNSEEN = ["XY!", "ZU!", "W!", "xy.", "zu.", "w."]
SOURCES = ["you are here, he said", "you have gone to the city"]
REFERENCES = [["thou art here, he said", "here thou art"], ["thou hast gone to the city", "thou art gone"]]
STYLES = ["loud", "calm"]


@pytest.fixture(scope="module")
def judge():
    return StyleJudge.fit(UNSEEN, ["loud"] * 3 + ["calm"] * 3)


class Capitals:
    """A second judge, of another kind."""

    def predict(self, texts):
        return ["loud" if text.isupper() else "calm" for text in texts]


@pytest.fixture(scope="module")
def found(tmp_path_factory, judge):
    """A toy evaluated beside another system, and its trainer."""
    trainer, rows = trained_toy(tmp_path_factory.mktemp("trained")), toy_rows()
    evaluator = StyleTransferEvaluator({"tf-idf": judge, "capitals": Capitals()}, samples=200)
    systems = {"theirs": [text.upper() for text in rows["source"]]}
    return trainer, rows, evaluator.evaluate(trainer.style_model, trainer.processing_class, rows, systems=systems)


def test_the_rows_are_the_copy_the_backbone_the_adapter_and_the_other_systems(found, judge):
    trainer, rows, evaluation = found
    model, tokenizer = trainer.style_model, trainer.processing_class
    sources, targets, styles = (list(rows[name]) for name in ("source", "target", "style"))
    assert evaluation.outputs["copy"] == sources
    assert evaluation.outputs["before"] == transfer(model, tokenizer, sources, OFF)
    assert evaluation.outputs["after"] == targets
    assert list(evaluation.outputs) == ["copy", "before", "after", "theirs"]
    for run, outputs in evaluation.outputs.items():
        fluency = BackboneScorer(model, tokenizer).fluency(outputs, sources).tolist()
        joint = joint_report(outputs, sources, styles, judge=judge, references=targets, fluency=fluency)
        for style, expected in score_transfer(outputs, sources, targets, styles, judge=judge).items():
            numbers = evaluation.scores[run][style]
            assert {name: numbers[name].value for name in expected.to_dict()} == pytest.approx(expected.to_dict())
            assert numbers["joint"].value == pytest.approx(joint.directions[style].joint)
        overall = evaluation.scores[run]["overall"]
        assert overall["joint"].value == pytest.approx(joint.overall.joint)
        assert overall["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(outputs, [targets]).score)
        assert overall["perplexity"].value > 1
    assert evaluation.outputs["before"] != evaluation.outputs["after"]
    assert evaluation.scores["after"]["loud"]["style_accuracy"].value == 1.0
    theirs = {style: found["style_accuracy_capitals"].value for style, found in evaluation.scores["theirs"].items()}
    assert theirs == {"loud": 1.0, "calm": 0.0, "overall": 0.5}


def test_what_the_adapter_changed_is_tested(found):
    *_, evaluation = found
    changes = evaluation.differences()["overall"]
    before, after = (evaluation.scores[run]["overall"] for run in ("before", "after"))
    for name, change in changes.items():
        assert change.value == pytest.approx(after[name].value - before[name].value)
    assert changes["joint"].p_value < 0.05
    assert changes["joint"].low > 0
    with pytest.raises(ValueError, match=r"'hers' must be one of the runs \['copy', 'before', 'after', 'theirs'\]"):
        evaluation.differences("hers")


def test_table_and_files_show_the_scores(found, tmp_path):
    *_, evaluation = found
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in evaluation.table().splitlines()]
    head, _, *rows = lines
    assert [row[:2] for row in rows[:4]] == [["loud", run] for run in ("copy", "before", "after", "theirs")]
    assert [row[0] for row in rows[8:]] == ["overall"] * 4
    shown = [
        "style accuracy",
        "style accuracy, capitals",
        "BLEU",
        "self-BLEU",
        "J",
        "perplexity",
        "copies",
        "distinct-2",
    ]
    assert head == ["to", "run", *shown]
    one = evaluation.scores["after"]["loud"]["joint"]
    assert rows[2][head.index("J")] == f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
    evaluation.save(tmp_path / "found")
    saved = json.loads((tmp_path / "found" / "metrics.json").read_text("utf-8"))
    assert saved == json.loads(json.dumps(evaluation.to_dict()))
    assert saved["runs"]["after"]["loud"]["style_accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (
        saved["after - before"]["overall"]["joint"]["p_value"] == evaluation.differences()["overall"]["joint"].p_value
    )
    assert saved["settings"]["bleu"].startswith("nrefs:1|case:mixed")
    assert (tmp_path / "found" / "metrics.md").read_text("utf-8") == evaluation.report() + "\n"
    assert "| after - before |" in evaluation.report()
    for name in ("joint.png", "trade_off.png"):
        assert (tmp_path / "found" / name).read_bytes().startswith(b"\x89PNG")


class Lengths:
    """An encoder whose cosines are known."""

    def encode(self, texts, **options):
        return np.array([[1.0, len(text) % 2] for text in texts])


def test_similarity_to_the_source_is_a_column_where_a_model_is_given(judge):
    evaluator = StyleTransferEvaluator([judge], similarity=Lengths())
    evaluation = evaluator.score({"x": ["odd", "even"]}, ["odd", "odd"], STYLES)
    assert evaluation.scores["x"]["overall"]["self_similarity"].value == pytest.approx((1 + np.sqrt(0.5)) / 2)
    assert "| similarity |" in evaluation.table()


def test_each_human_reference_is_scored_against_the_others(judge):
    outputs = {"theirs": ["THOU art here", "thou hast gone"]}
    evaluation = StyleTransferEvaluator([judge]).score(outputs, SOURCES, STYLES, references=REFERENCES)
    assert list(evaluation.outputs) == ["theirs", "human 1", "human 2"]
    first, second = zip(*REFERENCES, strict=True)
    scores = {run: found["overall"]["bleu"].value for run, found in evaluation.scores.items()}
    assert scores["theirs"] == sacrebleu.corpus_bleu(outputs["theirs"], [first, second]).score
    assert scores["human 1"] == sacrebleu.corpus_bleu(first, [second]).score
    assert scores["human 2"] == sacrebleu.corpus_bleu(second, [first]).score
    assert "perplexity" not in evaluation.scores["theirs"]["overall"]
    assert "one less than the systems have" in evaluation.report()


def test_without_references_content_is_measured_against_the_sources(judge):
    evaluation = StyleTransferEvaluator([judge]).score({"copy": SOURCES}, SOURCES, ["calm", "calm"])
    assert list(evaluation.scores["copy"]) == ["calm"]  # one direction is the whole
    assert evaluation.scores["copy"]["calm"]["content"].value == 1.0
    assert "bleu" not in evaluation.scores["copy"]["calm"]
    assert "| BLEU |" not in evaluation.table()


def test_a_named_model_reads_perplexity_in_place_of_the_backbone(judge, tmp_path):
    texts = ["a b c", "d e f"]
    scorer = BackboneScorer(adapted(), byte_tokenizer())
    backbone = StyleTransferEvaluator([judge]).score({"x": texts}, SOURCES, STYLES, scorer=scorer)
    llama().save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    named = StyleTransferEvaluator([judge], language_model=tmp_path).score({"x": texts}, SOURCES, STYLES)
    for name in ("perplexity", "sentence_perplexity", "fluency", "joint"):
        one, other = (found.scores["x"]["overall"][name] for found in (named, backbone))
        assert one.value == pytest.approx(other.value, rel=1e-5)
    assert named.scores["x"]["overall"]["fluency"].value < 1


def test_a_judge_that_knows_an_evaluated_line_is_refused_before_anything_is_written(monkeypatch):
    rows = toy_rows(["ab", "cd"])
    known = StyleJudge.fit([*UNSEEN, "CD!"], ["loud"] * 3 + ["calm"] * 3 + ["loud"])
    monkeypatch.setattr("style_adapter.evaluation.evaluator.transfer", lambda *args, **options: pytest.fail("written"))
    with pytest.raises(ValueError, match=r"judge 'judge 1' was trained on 1 of the 6 evaluated lines, 'CD!' the first"):
        StyleTransferEvaluator([known]).evaluate(adapted(), byte_tokenizer(), rows)
    source = StyleJudge.fit([*UNSEEN, SOURCES[0]], ["loud"] * 3 + ["calm"] * 4)
    for references in (None, REFERENCES):
        with pytest.raises(ValueError, match="must know none of them"):
            StyleTransferEvaluator({"mine": source}).score({"x": SOURCES}, SOURCES, STYLES, references=references)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda judge: StyleTransferEvaluator([]), r"judges=\[\] must hold at least one"),
        (
            lambda judge: StyleTransferEvaluator([judge]).score({"their own": ["a"]}, SOURCES, STYLES),
            "their own of length 1 must be as long as sources, 2",
        ),
        (lambda judge: StyleTransferEvaluator([judge]).score({"x": SOURCES}, SOURCES, ["odd"] * 2), "style='odd' must"),
    ],
)
def test_errors_name_what_is_wrong(judge, call, message):
    with pytest.raises(ValueError, match=message):
        call(judge)


def test_another_system_must_not_take_the_name_of_a_row(judge, monkeypatch):
    monkeypatch.setattr("style_adapter.evaluation.evaluator.transfer", lambda model, tokenizer, texts, *a, **o: texts)
    rows = toy_rows(["ab"])
    with pytest.raises(ValueError, match="systems has 'before', which must not be one of"):
        StyleTransferEvaluator([judge]).evaluate(adapted(), byte_tokenizer(), rows, systems={"before": ["a", "b"]})


# In training


def test_the_trainer_scores_its_evaluations_by_the_evaluator(tmp_path, judge):
    rows = toy_rows(["mn", "op"])
    evaluator = StyleTransferEvaluator({"tf-idf": judge, "capitals": Capitals()}, samples=10)
    trainer = make_trainer(tmp_path, eval_dataset=rows, compute_metrics=evaluator)
    metrics = trainer.evaluate()
    model, tokenizer = trainer.style_model, trainer.processing_class
    outputs = transfer(model, tokenizer, rows["source"], rows["style"])
    scorer, columns = BackboneScorer(model, tokenizer), (list(rows["source"]), list(rows["style"]))
    expected = evaluator.score({"x": outputs}, *columns, references=list(rows["target"]), scorer=scorer).scores["x"]
    assert metrics["eval_style_score"] == pytest.approx(expected["overall"]["joint"].value)
    for direction, numbers in expected.items():
        for name, one in numbers.items():
            assert metrics[f"eval_{direction}_{name}"] == pytest.approx(one.value, nan_ok=True), name
    assert {"eval_loss", "eval_loud_content", "eval_calm_style_accuracy_capitals"} <= metrics.keys()


def test_the_trainer_hands_any_function_what_it_evaluated(tmp_path):
    seen = []

    def count(prediction):
        seen.append(prediction)
        return {"lines": float(len(prediction.predictions)), "style_score": 0.25}

    rows = toy_rows(["mn", "op"])
    metrics = make_trainer(tmp_path, eval_dataset=rows, eval_samples=3, compute_metrics=count).evaluate()
    assert (metrics["eval_lines"], metrics["eval_style_score"]) == (3.0, 0.25)
    assert seen[0].label_ids == ["MN!", "mn.", "OP!"]
    assert seen[0].inputs["sources"] == ["mn", "mn", "op"]
    assert seen[0].inputs["styles"] == ["loud", "calm", "loud"]
    unpaired = datasets.Dataset.from_dict({"text": ["ab!", "cd."], "style": ["loud", "calm"]})
    options = {"rows": unpaired, "eval_dataset": unpaired, "task": "unpaired", "compute_metrics": count}
    make_trainer(tmp_path, **options).evaluate()
    assert seen[1].label_ids is None
    assert seen[1].inputs["styles"] == ["calm", "loud"]


def test_the_judge_of_an_evaluator_in_training_must_not_know_the_rows_either(tmp_path):
    rows = toy_rows(["mn"])
    judge = StyleJudge.fit(rows["target"], rows["style"])
    assert judge.trained_on == line_hashes(rows["target"])
    trainer = make_trainer(tmp_path, eval_dataset=rows, compute_metrics=StyleTransferEvaluator([judge]))
    with pytest.raises(ValueError, match="was trained on 2 of the 3 evaluated lines"):
        trainer.evaluate()
