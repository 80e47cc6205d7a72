"""J: what earns nothing, what is multiplied when; and fluency against the plain backbone's own loss."""

import json
from dataclasses import FrozenInstanceError, replace

import datasets
import numpy as np
import pytest
import torch
from training_fixtures import END, adapted, arguments, byte_tokenizer, gpt2, llama, randomised, t5, toy_rows

from style_adapter.data import StylePool
from style_adapter.fluency import BackboneScorer
from style_adapter.metrics import JointScore, StyleJudge, joint_report, relative_fluency, sentence_chrf
from style_adapter.model import styled
from style_adapter.tasks import Setting, TransferTask, UnpairedTask
from style_adapter.tasks.rewriting import score_rewrites

OLD = ["thou art here", "thou hast gone", "ye shall see", "he saith unto thee", "thou knowest not", "ye do err"]
NEW = ["you are here", "you have gone", "you will see", "he says to you", "you don't know", "you are wrong"]
TEXTS = ["ab", "a", "cde fgh", "AB!", "日b ja je", "ab"]


@pytest.fixture(scope="module")
def judge() -> StyleJudge:
    return StyleJudge.fit(OLD + NEW, ["old"] * len(OLD) + ["new"] * len(NEW))


def joint(outputs: list[str], judge: StyleJudge, **options) -> JointScore:
    """J of the way from new to old."""
    return joint_report(outputs, NEW, ["old"] * len(OLD), judge=judge, **options).overall


# J


def test_copying_everything_scores_zero(judge):
    for references in (OLD, None):
        copied, half, whole = (joint(o, judge, references=references) for o in (NEW, OLD[:3] + NEW[3:], OLD))
        assert copied.joint == 0.0 < half.joint < whole.joint
    assert joint(NEW, judge).content == 1.0
    assert joint(OLD, judge, references=OLD).joint == 1.0


def test_words_that_please_the_judge_and_say_nothing_score_next_to_nothing(judge):
    found = joint(["thou thou thou ye hast"] * len(NEW), judge, references=OLD)
    assert found.style == 1.0
    assert found.joint < 0.25 * joint(OLD, judge, references=OLD).joint


def test_joint_is_multiplied_before_it_is_averaged(judge):
    # One line in the right style without content, one copied: both averages are a half, and no line is good.
    found = joint_report(
        ["thou zzzz", NEW[1]], ["qqq", NEW[1]], ["old", "old"], judge=judge, references=["qqq", NEW[1]]
    )
    score = found.overall
    assert (score.style, score.content, score.joint) == (0.5, 0.5, 0.0)
    assert score.style * score.content == 0.25


def test_joint_is_the_mean_product_of_the_three_factors(judge):
    outputs, fluency = [*OLD[:4], *NEW[4:]], [1.0, 0.5, 0.25, 0.0, 1.0, 1.0]
    content = sentence_chrf(outputs, NEW)
    right = [judged == "old" for judged in judge.predict(outputs)]
    found = joint(outputs, judge, fluency=fluency)
    assert found.joint == pytest.approx(np.mean([a * b * c for a, b, c in zip(right, content, fluency, strict=True)]))
    assert found.fluency == pytest.approx(np.mean(fluency))


def test_directions_have_one_weight_however_many_lines_they_have(judge):
    outputs, sources, styles = [*OLD[:4], OLD[4]], [*NEW[:4], OLD[4]], ["old"] * 4 + ["new"]
    found = joint_report(outputs, sources, styles, judge=judge, references=[*OLD[:4], NEW[4]])
    assert list(found.directions) == ["old", "new"]
    assert found.directions["new"].joint == 0.0 < found.directions["old"].joint
    assert found.overall.joint == found.directions["old"].joint / 2
    assert json.loads(json.dumps(found.to_dict()))["overall"]["joint"] == found.overall.joint
    with pytest.raises(FrozenInstanceError):
        found.overall.joint = 1.0


def test_lines_that_do_not_pair_up_are_refused(judge):
    with pytest.raises(ValueError, match="fluency of length 1 must be as long as outputs, 6"):
        joint(OLD, judge, fluency=[1.0])
    with pytest.raises(ValueError, match="styles of length 1 must be as long as outputs, 6"):
        joint_report(OLD, NEW, ["old"], judge=judge)


# Fluency


def plain_likelihood(backbone: torch.nn.Module, text: str) -> float:
    """Mean log-likelihood of a text's tokens after the end of another, by transformers' own loss."""
    ids = torch.tensor([[END, *byte_tokenizer()(text)["input_ids"]]])
    with torch.no_grad():
        return -float(backbone.eval()(input_ids=ids, labels=ids).loss)


@pytest.mark.parametrize("backbone", [llama, gpt2])
def test_likelihood_is_the_plain_backbones_whatever_the_adapter_and_the_batch(backbone):
    model = randomised(adapted(backbone(), dropout=0.5)).train()
    expected = [plain_likelihood(backbone(), text) for text in TEXTS]
    for batch_size in (1, 2, 32):
        scorer = BackboneScorer(model, byte_tokenizer(), batch_size=batch_size)
        with styled(model, "loud"):
            assert scorer.log_likelihoods(TEXTS) == pytest.approx(expected, abs=1e-5)
    assert model.training
    assert not any(p.grad is not None for p in model.parameters())


def test_fluency_is_the_ratio_of_probabilities_and_at_most_one():
    scorer = BackboneScorer(adapted(), byte_tokenizer())
    likelihoods = scorer.log_likelihoods(["ab", "cde", "", "ab"])
    assert likelihoods[2] == -np.inf
    found = scorer.fluency(["ab", "cde", "", "ab"], ["cde", "ab", "ab", "ab"])
    ratio = float(np.exp(likelihoods[0] - likelihoods[1]))
    assert found == pytest.approx([min(1, ratio), min(1, 1 / ratio), 0, 1])
    assert relative_fluency(np.array([-np.inf]), np.array([-np.inf])).tolist() == [0.0]


def test_sources_are_read_once_and_again_where_the_backbone_trains(monkeypatch):
    read: list[str] = []
    plain = BackboneScorer.log_likelihoods
    monkeypatch.setattr(
        BackboneScorer, "log_likelihoods", lambda self, texts: (read.extend(texts), plain(self, texts))[1]
    )
    for model, again in ((adapted(), []), (adapted(trainable="all"), ["s"])):
        read.clear()
        scorer = BackboneScorer(model, byte_tokenizer())
        scorer.fluency(["x", "z"], ["s", "t"])
        scorer.fluency(["y"], ["s"])
        assert read == ["x", "z", "s", "t", "y", *again]


def test_an_encoder_decoder_has_no_fluency_and_counts_as_fluent():
    model = adapted(t5(), task_type="SEQ_2_SEQ_LM")
    assert BackboneScorer(model, byte_tokenizer()).fluency(["a", "b"], ["c", "d"]).tolist() == [1.0, 1.0]


def test_the_style_score_of_rewrites_is_joint_with_references_and_without(tmp_path):
    rows, model = toy_rows(["ab cd ef gh", "ij kl mn op"]), adapted()
    setting = Setting(model, byte_tokenizer(), arguments(tmp_path))
    setting = replace(setting, judge=TransferTask.judge_of(rows, setting))
    outputs, orders = list(rows["target"]), TransferTask.orders(rows, setting)
    fluency = setting.scorer.fluency(outputs, orders.sources).tolist()
    for references in (outputs, None):
        found = score_rewrites(outputs, orders, setting, references=references)
        columns = (outputs, orders.sources, orders.styles)
        expected = joint_report(*columns, judge=setting.judge, references=references, fluency=fluency)
        assert found["style_score"] == expected.overall.joint
        assert found["loud_joint"] == expected.directions["loud"].joint
        assert found["calm_content"] == expected.directions["calm"].content
        assert found["calm_fluency"] == expected.directions["calm"].fluency
    assert TransferTask.score(outputs, rows, setting) == score_rewrites(outputs, orders, setting, references=outputs)


def test_unpaired_texts_are_asked_for_in_another_style_whatever_share_of_them_a_process_has(tmp_path):
    texts = ["ab!", "cd.", "ef?", "gh!", "ij.", "kl?"]
    rows = datasets.Dataset.from_dict({"text": texts, "style": ["loud", "calm", "odd"] * 2})
    setting = Setting(adapted(styles=["loud", "calm", "odd"]), byte_tokenizer(), arguments(tmp_path))
    pool = StylePool.of(UnpairedTask.tokenize(rows, setting), rows["style"])
    setting = replace(setting, pool=pool, judge=UnpairedTask.judge_of(rows, setting))
    orders = UnpairedTask.orders(rows, setting)
    assert orders.sources == texts
    assert all(wanted != own for wanted, own in zip(orders.styles, rows["style"], strict=True))
    share = rows.add_column("row_id", [*range(6)]).select([1, 3, 5])
    assert UnpairedTask.orders(share, setting).styles == orders.styles[1::2]
    copied = UnpairedTask.score(texts, rows, setting)
    assert copied["style_score"] == 0.0
    assert {copied[f"{style}_content"] for style in orders.styles} == {1.0}
