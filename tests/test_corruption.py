"""Corruptions against their bounds, BERT's and Lample's rates, and Li's formula counted by brute force."""

import json
from collections import Counter

import pytest
import torch

from style_adapter.corruption import (
    Corruption,
    StyleMarkers,
    drop_words,
    join_words,
    mask_tokens,
    shuffle_words,
    split_words,
)
from style_adapter.seeds import generator_of, row_seed

TEXTS = [
    "Don't  go, she said - 'twas late!",
    "  leading and trailing\n",
    "don\u2019t—stop: well-known e-mails, 3.50€ or $5?",
    "你好,世界!これはテストです。",
    "नमस्ते दुनिया, कैसे हो?",
    "cafe\u0301 und Stra\u00dfe, \u00c9COLE",
    "안녕하세요 세계",
    "ok 👍🏽 yes ❤️!",
    "か\u3099abc",
    "a,b,c",
    "...",
]
FILLERS = ["the", "a", "we", "had", "bread", "for", "lunch", "hot", "it", "was", "very", "here"]


def drawn(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def toy_corpus(style: str, count: int = 300) -> list[str]:
    """Sentences of the same words in both styles, but for "WOW" and "gr8 soup" side by side, or "alas"."""
    sentences = []
    for row in range(count):
        generator = drawn(row_seed(0, 0, row, use=style))
        fillers = [FILLERS[i] for i in torch.randint(len(FILLERS), (8,), generator=generator)]
        places = sorted(torch.randperm(8, generator=generator)[:3].tolist())
        marker = "alas" if style == "calm" else ["WOW", "gr8 soup"][row % 2]
        planted = dict(zip(places, ["soup", "gr8", marker], strict=True))
        sentences.append(" ".join(f"{word} {planted.get(i, '')}".strip() for i, word in enumerate(fillers)))
    return sentences


LOUD, CALM = toy_corpus("loud"), toy_corpus("calm")


@pytest.fixture(scope="module")
def markers() -> StyleMarkers:
    """The markers of two toy styles."""
    return StyleMarkers.fit(LOUD + CALM, ["loud"] * len(LOUD) + ["calm"] * len(CALM))


# Words


@pytest.mark.parametrize("text", [*TEXTS, "", " \n"])
def test_joining_all_words_in_order_gives_the_text_back(text):
    words, gaps = split_words(text)
    places = range(len(words))
    assert len(gaps) == len(words) + 1
    assert all(not gap.strip() for gap in gaps)
    if words:
        assert join_words(words, gaps, places, places) == text


def test_words_of_many_scripts_are_whole():
    assert split_words("नमस्ते दुनिया")[0] == ["नमस्ते", "दुनिया"]  # vowel signs are no letters
    assert split_words("don\u2019t e-mail 'twas")[0] == ["don\u2019t", "e-mail", "'", "twas"]
    assert split_words("世界です")[0] == ["世", "界", "で", "す"]
    assert split_words("안녕 세계")[0] == ["안녕", "세계"]
    assert split_words("か\u3099abc")[0] == ["か\u3099", "abc"]


def test_words_that_lose_what_stood_between_them_do_not_run_into_one():
    words, gaps = split_words("yes,no 世,界")
    places = [i for i, word in enumerate(words) if word != ","]
    assert join_words(words, gaps, places, places) == "yes no 世界"


# Dropping and shuffling


def test_dropping_keeps_the_order_and_the_share_asked_for():
    ids = list(range(20_000))
    kept = drop_words(ids, drawn(0), rate=0.3)
    assert kept == sorted(kept)
    assert abs(len(kept) / len(ids) - 0.7) < 0.01
    assert drop_words(ids, drawn(0), rate=0.0) == ids


def test_dropping_leaves_one_word_at_least_and_each_may_be_the_one():
    left = Counter(word for seed in range(300) for word in drop_words("abc", drawn(seed), rate=0.999))
    assert all(len(drop_words("abc", drawn(seed), rate=0.999)) == 1 for seed in range(50))
    assert set(left) == {"a", "b", "c"}
    assert min(left.values()) > 60
    assert drop_words([], drawn(0)) == []


@pytest.mark.parametrize("reach", [0, 1, 3, 10])
def test_shuffled_words_are_all_there_and_none_moves_further_than_its_reach(reach):
    moved = 0
    for seed in range(50):
        order = shuffle_words(range(40), drawn(seed), reach=reach)
        assert sorted(order) == list(range(40))
        distances = [abs(new - old) for new, old in enumerate(order)]
        assert max(distances) <= reach
        moved = max(moved, *distances)
    assert min(reach, 4) <= moved


def test_a_shuffle_with_a_long_reach_makes_every_order_about_as_likely():
    orders = Counter("".join(shuffle_words("abc", drawn(row_seed(0, 0, row)), reach=10**6)) for row in range(3000))
    assert len(orders) == 6
    assert max(orders.values()) / min(orders.values()) < 1.4


def test_shuffling_stays_within_reach_in_a_long_text():
    order = shuffle_words(range(10**6), drawn(0), reach=1)
    assert max(abs(new - old) for new, old in enumerate(order)) == 1


def test_rates_and_reaches_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match=r"rate=1.0 must be >= 0 and < 1"):
        drop_words("ab", drawn(0), rate=1.0)
    with pytest.raises(ValueError, match="reach=-1 must be >= 0"):
        shuffle_words("ab", drawn(0), reach=-1)


# Markers


def test_the_markers_of_a_toy_corpus_are_the_planted_words(markers):
    assert {style: set(grams) for style, grams in markers.salience.items()} == {
        "loud": {"wow", "gr8 soup"},
        "calm": {"alas"},
    }


def test_salience_is_the_formula_and_each_n_gram_above_the_threshold_is_a_marker_or_holds_one(markers):
    sizes, counts = [], []
    for corpus in (LOUD, CALM):
        grams: Counter[str] = Counter()
        for words in (text.casefold().split() for text in corpus):
            grams.update(" ".join(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))
        sizes.append(sum(len(text.split()) for text in corpus))
        counts.append(grams)
    unit = min(sizes)
    salience = {g: (n * unit / sizes[0] + 1) / (counts[1][g] * unit / sizes[1] + 1) for g, n in counts[0].items()}
    found = markers.salience["loud"]
    assert {gram: pytest.approx(salience[gram]) for gram in found} == found
    marked = {gram for gram, value in salience.items() if value >= 15.0}
    assert len(marked) > 3 * len(found)
    assert all(any(f" {marker} " in f" {gram} " for marker in found) for gram in marked)


def test_salience_of_corpora_of_equal_size_is_lis():
    loud, calm = ["it was wow", "it was it"] * 10, ["it was it", "wow it was"] + ["it was it"] * 18
    found = StyleMarkers.fit(loud + calm, ["loud"] * 20 + ["calm"] * 20, threshold=5.0, longest=1)
    assert found.salience["loud"] == {"wow": (10 + 1) / (1 + 1)}


def test_more_text_in_one_style_makes_no_more_markers(markers):
    for loud, calm in ((20, 1), (1, 20)):
        styles = ["loud"] * len(LOUD) * loud + ["calm"] * len(CALM) * calm
        more = StyleMarkers.fit(LOUD * loud + CALM * calm, styles)
        assert {style: set(grams) for style, grams in more.salience.items()} == {
            style: set(grams) for style, grams in markers.salience.items()
        }


def test_rare_words_are_no_markers_until_the_threshold_is_lowered():
    texts, styles = ["hail all", "hapax all"] * 3 + ["bye all"] * 6, ["a"] * 6 + ["b"] * 6
    texts[1] = texts[3] = "hail all"
    strict, lax = (StyleMarkers.fit(texts, styles, threshold=threshold) for threshold in (3.0, 2.0))
    assert strict.salience == {"a": {"hail": 6.0}, "b": {"bye": 7.0}}
    assert lax.salience["a"] == {"hail": 6.0, "hapax": 2.0}


def test_deletion_takes_the_markers_of_the_style_and_nothing_else(markers):
    assert markers.delete("Wow, the soup was  hot", "loud") == ", the soup was  hot"
    assert markers.delete("we had Gr8 soup, and gr8 bread", "loud") == "we had, and gr8 bread"
    assert markers.delete("WOW the soup", "calm") == "WOW the soup"


@pytest.mark.parametrize("text", ["wow", "WOW gr8 soup", ""])
def test_a_text_of_markers_alone_stays(markers, text):
    assert markers.delete(text, "loud") == text
    words = split_words(text)[0]
    assert markers.plain_places(words, "loud") == list(range(len(words)))


def test_markers_of_other_scripts_are_found_whatever_their_case_or_encoding():
    texts = ["\u00c9COLE 好吃 soup", "cole 菜 soup"]
    found = StyleMarkers.fit(texts * 10, ["a", "b"] * 10, threshold=5.0)
    assert {"\u00e9cole", "好", "吃"} == set(found.salience["a"])
    assert found.delete("die E\u0301cole, 好吃!", "a") == "die,!"


def test_markers_survive_json_exactly(markers):
    again = StyleMarkers.from_dict(json.loads(json.dumps(markers.to_dict())))
    assert again == markers
    assert list(again.salience["loud"]) == list(markers.salience["loud"])
    assert again.delete("wow gr8 soup x", "loud") == "x"


def test_markers_are_ordered_by_salience(markers):
    for grams in markers.salience.values():
        assert list(grams.values()) == sorted(grams.values(), reverse=True)


def test_a_style_without_markers_changes_nothing():
    texts = ["so be it"] * 10 + ["so be it lo"] * 10
    found = StyleMarkers.fit(texts, ["plain"] * 10 + ["old"] * 10, threshold=5.0)
    assert found.salience["plain"] == {}
    assert found.delete("so be it lo", "plain") == "so be it lo"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"styles": ["a"]}, "styles of length 1 must be as long as texts, 2"),
        ({"styles": ["a", "a"]}, r"styles=\['a'\] must name two at least"),
        ({"threshold": 1.0}, r"threshold=1.0 must be > 1"),
        ({"smoothing": 0.0}, r"smoothing=0.0 must be > 0"),
        ({"longest": 0}, "longest=0 must be >= 1"),
        ({}, r"no n-gram of 2 texts reaches threshold=15.0; lower it \(in a run marker_threshold, 0 for no m"),
    ],
)
def test_what_no_markers_can_be_fitted_to_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        StyleMarkers.fit(**{"texts": ["hi you", "bye you"], "styles": ["a", "b"]} | change)


def test_unknown_styles_and_foreign_states_are_refused(markers):
    with pytest.raises(ValueError, match="style='kjv' must be one of loud, calm; fit StyleMarkers to it too"):
        markers.delete("x", "kjv")
    with pytest.raises(ValueError, match="state with means must hold 'salience'"):
        StyleMarkers.from_dict({"means": 1})


# The whole corruption


def corrupted(corruption: Corruption, rows: list[int], epoch: int = 0) -> list[str]:
    """What becomes of some rows of the texts, each from its own seed."""
    return [corruption(TEXTS[row], generator_of(row_seed(5, epoch, row))) for row in rows]


def test_a_row_is_corrupted_the_same_in_any_batch_and_otherwise_in_another_epoch():
    corruption, rows = Corruption(drop=0.3, reach=3), list(range(len(TEXTS)))
    whole = corrupted(corruption, rows)
    backwards = corrupted(corruption, rows[::-1])
    assert whole == corrupted(corruption, rows[:4]) + corrupted(corruption, rows[4:]) == backwards[::-1]
    assert whole != corrupted(corruption, rows, epoch=1)


def test_no_corruption_leaves_an_empty_text(markers):
    corruption = Corruption(drop=0.99, reach=2, markers=markers)
    for text in [*TEXTS, "wow", "gr8 soup", "alas, wow"]:
        for seed in range(20):
            spoilt = corruption(text, drawn(seed), style="loud")
            assert spoilt.strip()
            assert set(split_words(spoilt)[0]) <= set(split_words(text)[0])
    assert corruption(" \n", drawn(0), style="loud") == " \n"


def test_a_corruption_of_nothing_gives_the_text_and_one_of_markers_alone_their_deletion(markers):
    assert [Corruption(0.0, 0)(text, drawn(0)) for text in TEXTS] == TEXTS
    assert Corruption(0.0, 0, markers)("the soup, wow!", drawn(0), style="loud") == "the soup,!"
    assert Corruption(0.0, 0, markers)("the soup, wow!", drawn(0)) == "the soup, wow!"


# Masked tokens


def masked(ids: list[int], seed: int, **options) -> tuple[list[int], list[int]]:
    """`mask_tokens` with a mask of 3 and the special tokens 1 and 2."""
    return mask_tokens(ids, drawn(seed), **{"mask_id": 3, "vocab_size": 1000, "special": {1, 2}} | options)


def test_masked_tokens_follow_bert():
    ids = torch.randint(500, 1000, (20_000,), generator=drawn(0)).tolist()
    spoilt, labels = masked(ids, 1)
    chosen = [i for i, label in enumerate(labels) if label != -100]
    assert len(chosen) == 3000
    assert all(labels[i] == ids[i] for i in chosen)
    assert all(spoilt[i] == ids[i] for i in set(range(len(ids))) - set(chosen))
    kinds = Counter("mask" if spoilt[i] == 3 else "same" if spoilt[i] == ids[i] else "random" for i in chosen)
    for kind, share in {"mask": 0.8, "same": 0.1, "random": 0.1}.items():
        assert abs(kinds[kind] / 3000 - share) < 0.02
    random = [spoilt[i] for i in chosen if spoilt[i] not in (3, ids[i])]
    assert 0 <= min(random) < 50
    assert 950 < max(random) < 1000


def test_a_short_text_has_one_token_to_tell_and_special_tokens_are_never_chosen():
    for seed in range(100):
        spoilt, labels = masked([1, 7, 8, 2], seed)
        assert sum(label != -100 for label in labels) == 1
        assert (labels[0], labels[3], spoilt[0], spoilt[3]) == (-100, -100, 1, 2)
    assert masked([1, 2], 0) == ([1, 2], [-100, -100])
    assert masked([], 0) == ([], [])


def test_masks_are_the_same_for_the_same_seed_and_others_for_another():
    ids = list(range(10, 60))
    assert masked(ids, 4) == masked(ids, 4)
    assert masked(ids, 4) != masked(ids, 5)


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_a_rate_of_masks_out_of_bounds_is_refused(rate):
    with pytest.raises(ValueError, match=f"rate={rate} must be > 0 and <= 1"):
        masked([5], 0, rate=rate)
