"""evaluate: a metric read from a path, since those of the hub need the network, on what adapted models say."""

from pathlib import Path

import pytest
from peers_fixtures import peer
from training_fixtures import adapted, byte_tokenizer, llama_classifier

from style_adapter import classify, transfer

evaluate = peer("evaluate")

SOURCES = ["ab", "c", "def", "gh"]


@pytest.fixture
def exact_match(tmp_path, monkeypatch):
    """The metric of the examples, with nothing written outside the test's folder."""
    for name in ("HF_MODULES_CACHE", "HF_METRICS_CACHE"):
        monkeypatch.setattr(evaluate.config, name, str(tmp_path / name))
    path = Path(__file__).parents[2] / "examples" / "peers" / "exact_match.py"
    return evaluate.load(str(path), cache_dir=str(tmp_path))


def test_a_metric_counts_the_texts_that_a_style_writes(exact_match):
    model, tokenizer = adapted(init_weights=False), byte_tokenizer()
    loud, calm = (transfer(model, tokenizer, SOURCES, style, max_new_tokens=6) for style in ("loud", "calm"))
    assert exact_match.compute(predictions=loud, references=loud) == {"exact_match": 1.0}
    mixed = [calm[0], *loud[1:]]
    equal = sum(a == b for a, b in zip(calm, mixed, strict=True)) / 4
    assert equal < 1
    assert exact_match.compute(predictions=calm, references=mixed) == {"exact_match": equal}


def test_a_metric_takes_classes_batch_by_batch(exact_match):
    model = adapted(llama_classifier(num_labels=3), init_weights=False, task_type="SEQ_CLS")
    found = classify(model, byte_tokenizer(), SOURCES, "calm")
    labels = [found[0], *((label + 1) % 3 for label in found[1:])]
    for one, label in zip(found, labels, strict=True):
        exact_match.add(prediction=str(one), reference=str(label))
    assert exact_match.compute() == {"exact_match": 0.25}
