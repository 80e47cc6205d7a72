"""The library evaluate's classes: each number against sacrebleu, transformers or a closed form, without a network."""

import sys

import evaluate
import numpy as np
import pytest
import sacrebleu
import torch
from training_fixtures import END, byte_tokenizer, llama, llama_classifier

from style_adapter.metrics import (
    ChrF,
    ContentBLEU,
    CopyRate,
    Diversity,
    Fluency,
    Joint,
    LanguageScorer,
    SemanticSimilarity,
    StyleAccuracy,
    StyleJudge,
    bleu,
    compression_ratio,
    distinct_n,
    expected_distinct,
    joint_report,
    mutual_bleu,
    sentence_chrf,
)

SOURCES = ["you are here, he said", "you have gone to the city", "ye shall see it there", "he saith unto thee: go"]
REFERENCES = ["thou art here, he said", "thou hast gone to the city", "you will see it there", "he says to you: go"]
SECOND = ["here thou art, said he", "thou art gone into the city", "you shall see it there", "he tells you to go"]
OUTPUTS = ["thou art here, he said", "you have gone to the city", "you will see that there", "he says unto you: go"]
OTHERS = [SOURCES[0], "thou wentest to the city", "you will see it", "he saith unto thee: go"]
STYLES = ["old", "old", "new", "new"]
BOTH = [list(pair) for pair in zip(REFERENCES, SECOND, strict=True)]
ALL = {"predictions": OUTPUTS, "sources": SOURCES, "references": BOTH, "styles": STYLES}


@pytest.fixture(scope="module")
def judge():
    texts = ["thou art", "thou hast", "he saith unto thee", "ye do", "you are", "you have", "he says to you", "you do"]
    return StyleJudge.fit(texts, ["old"] * 4 + ["new"] * 4)


def test_they_are_metrics_of_the_library_and_take_lines_one_by_one_in_batches_or_at_once(judge):
    whole = ContentBLEU().compute(**ALL)
    for metric in (ContentBLEU(samples=1000, seed=0), Joint(judge)):
        assert isinstance(metric, evaluate.Metric)
        expected = metric.compute(**ALL)
        metric.add_batch(**{name: column[:3] for name, column in ALL.items()})
        metric.add(prediction=OUTPUTS[3], source=SOURCES[3], reference=BOTH[3], style="new")
        assert metric.compute() == expected
    one = ContentBLEU().compute(predictions=OUTPUTS, references=REFERENCES)
    assert set(one) == {"bleu", "intervals", "signature"}
    assert evaluate.combine([CopyRate(), Joint(judge)]) is not None
    assert whole["directions"].keys() == {"old", "new"}


def test_bleu_is_sacrebleus_and_brings_its_signature():
    metric = sacrebleu.BLEU(lowercase=True, tokenize="none")
    found = ContentBLEU(lowercase=True, tokenize="none").compute(**ALL)
    assert found["bleu"] == metric.corpus_score(OUTPUTS, [REFERENCES, SECOND]).score
    assert found["signature"] == str(metric.get_signature())
    assert "nrefs:2|case:lc" in found["signature"]
    assert "nrefs:var" in ContentBLEU().compute(predictions=OUTPUTS, references=[*BOTH[:3], BOTH[3][:1]])["signature"]
    plain = ContentBLEU().compute(**ALL)
    assert plain["self_bleu"] == sacrebleu.corpus_bleu(OUTPUTS, [SOURCES]).score
    assert plain["directions"]["old"]["bleu"] == bleu(OUTPUTS[:2], BOTH[:2])
    low, high = plain["intervals"]["bleu"]
    assert low < plain["bleu"] < high


def test_chrf_is_the_mean_of_sentences():
    found = ChrF().compute(**ALL)
    assert found["chrf"] == pytest.approx(100 * np.mean(sentence_chrf(OUTPUTS, BOTH)))
    assert found["directions"]["new"]["self_chrf"] == pytest.approx(100 * np.mean(sentence_chrf(OUTPUTS, SOURCES)[2:]))


def test_style_accuracy_takes_any_judge_and_weighs_directions_alike(judge):
    outputs, styles = [*OUTPUTS, "thou art"], [*STYLES, "old"]
    right = [judged == wanted for judged, wanted in zip(judge.predict(outputs), styles, strict=True)]
    found = StyleAccuracy(judge).compute(predictions=outputs, styles=styles)
    old, new = np.mean([right[0], right[1], right[4]]), np.mean(right[2:4])
    assert found["directions"]["old"]["style_accuracy"] == pytest.approx(old)
    assert found["style_accuracy"] == pytest.approx((old + new) / 2)
    with pytest.raises(ValueError, match="style='odd' must be one of"):
        StyleAccuracy(judge).compute(predictions=["a"], styles=["odd"])


def test_copy_rate_and_joint_are_those_of_the_functions(judge):
    assert CopyRate().compute(predictions=OUTPUTS, sources=SOURCES, styles=STYLES)["copy_rate"] == 0.25
    expected = joint_report(OUTPUTS, SOURCES, STYLES, judge=judge, references=BOTH)
    found = Joint(judge).compute(**ALL)
    for name, value in expected.overall.to_dict().items():
        assert found[name] == pytest.approx(value)
        assert found["directions"]["old"][name] == pytest.approx(expected.directions["old"].to_dict()[name])


def test_diversity_is_that_of_the_functions():
    found = Diversity().compute(predictions=OUTPUTS)
    assert found["distinct_1"] == distinct_n(OUTPUTS, 1)
    assert found["distinct_2"] == distinct_n(OUTPUTS, 2)
    assert found["expected_distinct"] == expected_distinct(OUTPUTS)
    assert found["mutual_bleu"] == mutual_bleu(OUTPUTS)
    assert found["compression_ratio"] == compression_ratio(OUTPUTS)
    assert set(Diversity(["distinct_2"]).compute(predictions=OUTPUTS)) == {"distinct_2", "intervals"}
    with pytest.raises(ValueError, match=r"chosen has 'distinct_9', which must be one of \['distinct_1'"):
        Diversity(["distinct_9"])


class Letters:
    """An encoder whose cosines are known: how often a and b occur."""

    def __init__(self):
        self.read = []

    def encode(self, texts, **options):
        self.read += texts
        return np.array([[text.count("a"), text.count("b")] for text in texts], dtype=float)


def test_similarity_is_the_cosine_to_the_source_and_to_the_nearest_reference():
    encoder = Letters()
    metric = SemanticSimilarity(encoder)
    found = metric.compute(predictions=["a", "ab"], sources=["b", "ab"], references=[["b", "ab"], ["b", "a"]])
    assert found["self_similarity"] == pytest.approx((0 + 1) / 2)
    assert found["similarity"] == pytest.approx(np.sqrt(0.5))
    assert sorted(encoder.read) == ["a", "ab", "b"]  # each text once


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_sentence_transformers_model_is_loaded_from_its_folder(tmp_path):
    st = pytest.importorskip("sentence_transformers")
    from sentence_encoder import tiny_encoder

    encoder = tiny_encoder(str(tmp_path / "backbone"))
    encoder.save(str(tmp_path / "encoder"))
    texts, sources = ["yes", "hello thanks yes"], ["goodbye hi", "hello thanks"]
    found = SemanticSimilarity(str(tmp_path / "encoder")).compute(predictions=texts, sources=sources)
    expected = st.util.pairwise_cos_sim(encoder.encode(texts), encoder.encode(sources)).mean()
    assert found["self_similarity"] == pytest.approx(float(expected), abs=1e-5)


@pytest.fixture
def folder(tmp_path):
    llama().save_pretrained(tmp_path / "lm")
    classifier = llama_classifier(num_labels=2)
    classifier.save_pretrained(tmp_path / "cola")
    for name in ("lm", "cola"):
        byte_tokenizer().save_pretrained(tmp_path / name)
    return tmp_path


def loss(text: str) -> float:
    """Mean negative log-likelihood of a text's tokens after the end of another, by transformers' own loss."""
    ids = torch.tensor([[END, *byte_tokenizer()(text)["input_ids"]]])
    with torch.no_grad():
        return float(llama().eval()(input_ids=ids, labels=ids).loss)


def test_perplexity_a_token_and_a_sentence_are_those_of_transformers_loss(folder):
    texts = ["ab", "cde fg", "", "日b"]
    losses, sizes = [loss(t) for t in texts if t], [len(t.encode()) for t in texts if t]
    found = Fluency(str(folder / "lm"), classifier=str(folder / "cola")).compute(predictions=texts)
    assert found["perplexity"] == pytest.approx(np.exp(np.average(losses, weights=sizes)), rel=1e-5)
    assert found["sentence_perplexity"] == pytest.approx(np.mean(np.exp(losses)), rel=1e-5)
    model = llama_classifier(num_labels=2).eval()
    rows = [byte_tokenizer()(text)["input_ids"] for text in texts if text]
    with torch.no_grad():
        accepted = [int(model(torch.tensor([row])).logits[0].argmax()) for row in rows]
    written = Fluency(str(folder / "lm"), classifier=str(folder / "cola")).compute(predictions=[t for t in texts if t])
    assert written["acceptability"] == pytest.approx(np.mean(accepted))
    with pytest.raises(ValueError, match=r"style='fine' must be one of \['LABEL_0', 'LABEL_1'\]"):
        Fluency(str(folder / "lm"), classifier=str(folder / "cola"), acceptable="fine")


def test_joint_reads_fluency_by_the_model_that_it_is_given(folder, judge):
    scorer = LanguageScorer.load(str(folder / "lm"))
    found = Joint(judge, str(folder / "lm")).compute(**ALL)
    expected = [min(1, np.exp(loss(x) - loss(y))) for x, y in zip(SOURCES, OUTPUTS, strict=True)]
    assert found["fluency"] == pytest.approx(np.mean(expected), rel=1e-4)
    report = joint_report(
        OUTPUTS, SOURCES, STYLES, judge=judge, references=BOTH, fluency=scorer.fluency(OUTPUTS, SOURCES).tolist()
    )
    assert found["joint"] == pytest.approx(report.overall.joint)
    assert found["joint"] < Joint(judge).compute(**ALL)["joint"]


def test_two_systems_are_compared_on_the_same_lines(judge):
    given = {"sources": SOURCES, "references": BOTH, "styles": STYLES}
    for metric in (ContentBLEU(), Joint(judge), CopyRate(), Diversity()):
        found = metric.compare(OUTPUTS, OTHERS, **given)
        mine, theirs = metric.compute(**ALL), metric.compute(**ALL | {"predictions": OTHERS})
        for name in mine["intervals"]:
            assert found[name]["value"] == pytest.approx(mine[name] - theirs[name])
            assert found["directions"]["new"][name]["value"] == pytest.approx(
                mine["directions"]["new"][name] - theirs["directions"]["new"][name]
            )
            assert 0 <= found[name]["p_value"] <= 1
    # Of four lines two differ in that one is a copy: any of the four ways of swapping gives -1/2, 0 or 1/2.
    assert CopyRate(samples=5000).compare(OUTPUTS, OTHERS, **given)["copy_rate"]["p_value"] > 0.5


def test_what_is_missing_or_does_not_pair_up_is_named(judge):
    with pytest.raises(ValueError, match="styles=None must be given for StyleAccuracy; pass a list"):
        StyleAccuracy(judge).compute(predictions=OUTPUTS)
    with pytest.raises(ValueError, match="of sources and references at least one must be given"):
        ContentBLEU().compute(predictions=OUTPUTS)
    with pytest.raises(ValueError, match=r"Mismatch in the number of predictions \(4\) and styles \(1\)"):
        StyleAccuracy(judge).compute(predictions=OUTPUTS, styles=["old"])
    with pytest.raises(TypeError, match="'judge' must be one of predictions, sources, references, styles"):
        StyleAccuracy(judge).compute(predictions=OUTPUTS, styles=STYLES, judge=judge)
    with pytest.raises(ValueError, match="others of length 1 must be as long as predictions, 4"):
        CopyRate().compare(OUTPUTS, ["a"], sources=SOURCES)


def test_without_evaluate_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "style_adapter.metrics.modules")
    monkeypatch.delitem(sys.modules, "style_adapter.metrics.text_metric")
    monkeypatch.setitem(sys.modules, "evaluate", None)
    from style_adapter import metrics

    with pytest.raises(ImportError, match=r"metrics as classes need evaluate; pip install 'style_adapter\[eval\]'"):
        _ = metrics.ContentBLEU
