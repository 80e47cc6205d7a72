"""Judges of several kinds, and what a judge must not have seen."""

import hashlib

import pytest
import torch
from training_fixtures import byte_tokenizer, llama_classifier

from style_adapter.metrics import (
    ClassifierJudge,
    Judge,
    StyleJudge,
    check_unseen,
    joint_report,
    judge_named,
    line_hashes,
    score_transfer,
    style_accuracy,
)

OLD = ["thou art here", "thou hast gone", "ye shall see", "he saith unto thee"]
NEW = ["you are here", "you have gone", "you will see", "he says to you"]
STYLES = ["old"] * 4 + ["new"] * 4


class Shouting:
    """A judge of the user's own, which says nothing of itself."""

    def predict(self, texts):
        return ["loud" if text.isupper() else "calm" for text in texts]


def test_an_object_that_predicts_is_a_judge_everywhere():
    texts, styles = ["AB", "cd", "EF"], ["loud", "loud", "loud"]
    assert isinstance(Shouting(), Judge)
    assert judge_named(judge := Shouting()) is judge
    assert style_accuracy(texts, styles, Shouting()) == pytest.approx(2 / 3)
    assert score_transfer(texts, texts, texts, styles, judge=Shouting())["loud"].style_accuracy == pytest.approx(2 / 3)
    assert joint_report(texts, texts, styles, judge=Shouting()).overall.style == pytest.approx(2 / 3)


@pytest.fixture
def folder(tmp_path):
    model = llama_classifier(num_labels=2, id2label={0: "neg", 1: "pos"}, label2id={"neg": 0, "pos": 1})
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_classifier_names_its_likeliest_label(folder):
    judge, model = judge_named(folder), llama_classifier(num_labels=2).eval()
    texts = ["ab", "c", "xyz! w", "日b", "zzzzz", "!!"]
    expected = []
    for text in texts:
        with torch.no_grad():
            logits = model(torch.tensor([byte_tokenizer()(text)["input_ids"]])).logits[0]
        expected.append(["neg", "pos"][int(logits.argmax())])
    assert judge.predict(texts) == expected
    assert set(expected) == {"neg", "pos"}
    renamed = ClassifierJudge.load(folder, names={"neg": "sad"})
    assert renamed.predict(texts) == ["sad" if label == "neg" else label for label in expected]
    assert renamed.styles == ("sad", "pos")
    with pytest.raises(ValueError, match=r"style='loud' must be one of \['neg', 'pos'\]"):
        style_accuracy(texts, ["loud"] * 6, judge)
    with pytest.raises(ValueError, match=r"names has 'bad', which must be one of .* labels \['neg', 'pos'\]"):
        ClassifierJudge.load(folder, names={"bad": "sad"})


def test_a_judge_knows_its_training_lines_again_and_no_others():
    judge = StyleJudge.fit(OLD + NEW, STYLES)
    check_unseen(judge, ["thou art there", "you were here"])
    with pytest.raises(
        ValueError,
        match=r"judge 'a' was trained on 1 of the 2 evaluated lines, 'ye  shall see ' the first, .*without=lines",
    ):
        check_unseen(judge, ["x", "ye  shall see ", "x"], name="judge 'a'")
    check_unseen(Shouting(), OLD)
    check_unseen(StyleJudge(judge.pipeline, judge.styles), OLD)  # trained_on=None: not known


def test_lines_left_out_are_not_learnt_from():
    judge = StyleJudge.fit(OLD + NEW, STYLES, without=[" thou  art here", "you will see"])
    kept = [text for text in OLD + NEW if text not in ("thou art here", "you will see")]
    assert judge.trained_on == line_hashes(kept)
    plain = StyleJudge.fit(kept, ["old"] * 3 + ["new"] * 3)
    assert judge.probability(OLD, "old").tolist() == plain.probability(OLD, "old").tolist()
    check_unseen(judge, ["thou art here"])
    with pytest.raises(ValueError, match=r"styles=\['new'\] must name at least 2 styles"):
        StyleJudge.fit(OLD + NEW, STYLES, without=OLD)


def test_a_line_is_remembered_alike_in_every_process():
    # By hashlib, not by Python's hash(), which differs from process to process.
    digest = hashlib.blake2b(b"thou art here", digest_size=8).digest()
    assert line_hashes([" thou art  here"]) == {int.from_bytes(digest, "big")}
