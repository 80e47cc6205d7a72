"""The best of several rewrites, against looking at all of them."""

import numpy as np
import pytest
from training_fixtures import adapted, byte_tokenizer, randomised

from style_adapter import transfer, transfer_best, write
from style_adapter.inference import choose, drafts

SOURCES, STYLES = ["ab", "cde", "", "fg"], ["loud", "calm", "calm", "loud"]
ROOM = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def model():
    return randomised(adapted())


def best(model, score, **options):
    return transfer_best(model, byte_tokenizer(), SOURCES, STYLES, score=score, **ROOM, **options)


def test_the_best_is_the_one_of_all_candidates_with_the_highest_score(model):
    def number(text: str, style: str) -> float:
        return hash((len(text), style == "loud", *text.encode())) % 1009

    def score(sources, outputs, styles):
        return np.array([number(text, style) for text, style in zip(outputs, styles, strict=True)], dtype=float)

    tokenizer = byte_tokenizer()
    greedy = transfer(model, tokenizer, SOURCES, STYLES, **ROOM)
    drawn = write(model, tokenizer, SOURCES, STYLES, samples=5, top_k=20, seed=3, **ROOM)
    expected = [
        max([first, *others], key=lambda text: number(text, style)) if source else ""
        for source, style, first, others in zip(SOURCES, STYLES, greedy, drawn, strict=True)
    ]
    found = best(model, score, samples=5, seed=3)
    assert found == expected
    assert found != greedy


def test_where_all_are_alike_the_greedy_rewrite_wins(model):
    found = best(model, lambda sources, outputs, styles: np.zeros(len(outputs)))
    assert found == transfer(model, byte_tokenizer(), SOURCES, STYLES, **ROOM)


def test_without_samples_the_greedy_rewrite_is_the_only_draft(model):
    greedy = transfer(model, byte_tokenizer(), SOURCES, STYLES, **ROOM)
    assert drafts(model, byte_tokenizer(), SOURCES, STYLES, samples=0, **ROOM) == [[text] for text in greedy]


def test_scores_that_are_not_one_a_candidate_are_refused(model):
    with pytest.raises(ValueError, match="score gave 1 numbers for"):
        best(model, lambda sources, outputs, styles: np.zeros(1))


def test_a_source_without_a_candidate_is_refused():
    with pytest.raises(ValueError, match=r"candidates\[1\] is empty and must hold a text at least"):
        choose(["a", "b"], [["c"], []], ["loud", "calm"], lambda sources, outputs, styles: np.zeros(1))


def test_empty_texts_come_back_as_they_are(model):
    assert transfer_best(model, byte_tokenizer(), ["", " "], "calm", score=lambda *_: np.zeros(0)) == ["", " "]
