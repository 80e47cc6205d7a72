"""Best-of-n self-training: the pairs of a round, against drafting and choosing by hand."""

from typing import Any

import numpy as np
import pytest
from training_fixtures import SOURCES, adapted, byte_tokenizer, randomised

from style_adapter import best_pairs, transfer, write
from style_adapter.data import prompt_ids, room
from style_adapter.inference import prompt_of

STYLES = ["loud", "calm"] * (len(SOURCES) // 2)
OTHER = {"loud": "calm", "calm": "loud"}
WANTED = [OTHER[style] for style in STYLES]
LEAST = 800.0  # some texts have no candidate above it


@pytest.fixture(scope="module")
def model():
    """An adapter whose greedy rewrites say something."""
    return randomised(adapted())


def number(source: str, output: str, style: str) -> float:
    """Any order of rewrites, with no sense but the same one each time."""
    return hash((len(source), style == "loud", *output.encode())) % 1009


def score(sources, outputs, styles):
    return np.array([number(*row) for row in zip(sources, outputs, styles, strict=True)], dtype=float)


def found(model, **options):
    return best_pairs(model, byte_tokenizer(), SOURCES, STYLES, score=score, samples=3, seed=5, **options)


def chosen_by_hand(model, others: list[list[str]], least: float) -> list[dict[str, Any]]:
    """Every candidate looked at, the earlier of those that score alike kept."""
    tokenizer = byte_tokenizer()
    longest = max(map(len, prompt_ids(tokenizer, prompt_of(model), SOURCES)))
    greedy = transfer(model, tokenizer, SOURCES, WANTED)
    drawn = write(model, tokenizer, SOURCES, WANTED, samples=3, top_k=20, seed=5, max_new_tokens=room(longest))
    pairs = []
    for text, style, wanted, first, more, offers in zip(SOURCES, STYLES, WANTED, greedy, drawn, others, strict=True):
        candidates = [first, *more, *offers]
        best = max(candidates, key=lambda y: number(text, y, wanted))
        worst = min(candidates, key=lambda y: number(text, y, wanted))
        worse = worst if best == first else first
        if number(text, best, wanted) > least and best != text:
            rejected = worse if number(text, worse, wanted) < number(text, best, wanted) else ""
            pairs.append({"source": text, "target": best, "style": wanted, "synthetic": True, "rejected": rejected})
            pairs.append({"source": best, "target": text, "style": style, "synthetic": False, "rejected": ""})
    return pairs


def test_the_pairs_are_those_of_the_best_draft_chosen_by_hand(model):
    expected = chosen_by_hand(model, [[]] * len(SOURCES), 0.0)
    assert found(model) == expected
    assert len(expected) == 2 * len(SOURCES)
    assert found(model, both_ways=False) == expected[::2]


def test_a_text_whose_best_is_itself_or_no_better_than_least_gives_no_pair(model):
    others = [[text] for text in SOURCES]
    expected = chosen_by_hand(model, others, LEAST)
    assert found(model, others=others, least=LEAST) == expected
    kept = {pair["source"] for pair in expected}
    itself = [text for text, wanted in zip(SOURCES, WANTED, strict=True) if text not in kept]
    assert 0 < len(itself) < len(SOURCES)


def test_further_candidates_win_where_they_score_best(model):
    def longest(sources, outputs, styles):
        return np.array([float(len(output)) for output in outputs])

    others = [[text * 40] for text in SOURCES]
    pairs = best_pairs(model, byte_tokenizer(), SOURCES, STYLES, score=longest, others=others, samples=1)
    assert [pair["target"] for pair in pairs[::2]] == [text * 40 for text in SOURCES]
    assert [pair["target"] for pair in pairs[1::2]] == SOURCES


def test_a_text_is_asked_in_the_style_that_is_wanted_and_texts_of_one_style_in_none(model):
    tokenizer, ones = byte_tokenizer(), np.ones
    mixture = {"loud": 0.5, "calm": 0.25}
    pairs = best_pairs(
        model, tokenizer, ["ab"], ["loud"], wanted=[mixture], score=lambda *rows: ones(len(rows[0])), samples=1
    )
    assert [pair["style"] for pair in pairs] == ["0.5*loud + 0.25*calm", "loud"]
    assert pairs[0]["target"] == transfer(model, tokenizer, ["ab"], [mixture])[0]
    with pytest.raises(ValueError, match=r"styles=\['loud'\] must name two at least: one is rewritten into another"):
        best_pairs(model, tokenizer, ["ab"], ["loud"], score=score)
