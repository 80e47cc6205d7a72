"""The teacher of unpaired text: its counts against counting by hand, its search against trying everything."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from style_adapter.teacher import EditTeacher, Halves, RewriteWeights, teacher_pairs
from style_adapter.teacher.arrays import padded
from style_adapter.teacher.comparing import word_edits
from style_adapter.teacher.drafts import Drafts, Edits
from style_adapter.teacher.evidence import StyleEvidence
from style_adapter.teacher.lexicon import EDGE, RARE, Lexicon, Words
from style_adapter.teacher.neighbours import Neighbours, key_of, words_of
from style_adapter.teacher.ngrams import NGrams
from style_adapter.teacher.scoring import cosine
from style_adapter.teacher.search import EditSearch
from style_adapter.teacher.vectors import word_vectors

GOOD = [f"the {thing} was {praise} ." for thing in ("soup", "tea", "cake") for praise in ("good", "lovely")]
BAD = [f"the {thing} was {blame} ." for thing in ("soup", "tea", "cake") for blame in ("bad", "awful")]
TEXTS, STYLES = (GOOD + BAD) * 8, (["pro"] * len(GOOD) + ["con"] * len(BAD)) * 8


@pytest.fixture(scope="module")
def teacher() -> EditTeacher:
    return EditTeacher.fit(TEXTS, STYLES)


# Words


def test_a_text_is_its_parts_joined_again():
    for text in ("Don't  go, you!", " a b ", "", "你好。"):
        assert Words.of(text).text() == text


def test_a_lexicon_numbers_words_by_count_and_knows_the_usual_space_before_them():
    lexicon = Lexicon.fit([Words.of("so good, so good!"), Words.of("so bad, good")])
    assert lexicon.encode(["so", "good", ",", "bad", "?"]) == [2, 3, 4, RARE, RARE]
    assert [lexicon.gaps[i] for i in lexicon.encode(["good", ","])] == [" ", ""]


# Language


def plain_kneser_ney(texts, words, discount=0.75):
    """p(w | three words before) straight from the formula, with dictionaries."""
    grams = [Counter() for _ in range(4)]
    for text in texts:
        edged = [EDGE] * 3 + list(text) + [EDGE]
        for end in range(4, len(edged) + 1):
            grams[3][tuple(edged[end - 4 : end])] += 1
    for n in (2, 1, 0):
        grams[n] = Counter(gram[1:] for gram in grams[n + 1])

    def p(gram):
        if not gram:
            return 1 / words
        after = {g: c for g, c in grams[len(gram) - 1].items() if g[:-1] == gram[:-1]}
        if not after:
            return p(gram[1:])
        total = sum(after.values())
        return max(after.get(gram, 0) - discount, 0) / total + discount * len(after) / total * p(gram[1:])

    return p


def test_ngrams_are_interpolated_kneser_ney_by_the_formula():
    texts = [[2, 3, 4, 5], [2, 3, 5], [3, 4, 5, 2, 3], [2, 4]]
    model, p = NGrams.fit(texts, 7), plain_kneser_ney(texts, 7)
    for text in ([2, 3, 4, 5], [5, 4, 3, 2], [6, 2, 3, 1], [4]):
        edged = [EDGE] * 3 + text + [EDGE]
        expected = sum(math.log(p(tuple(edged[end - 4 : end]))) for end in range(4, len(edged) + 1))
        assert model.log_probability(padded([text, [2] * 6]))[0] == pytest.approx(expected)


# Neighbours


def test_neighbours_hold_what_stands_between_two_words_the_commonest_first():
    texts = [
        [2, 3, 4],
        [2, 3, 4],
        [2, 5, 4],
        [2, 5, 4],
        [2, 5, 4],
        [2, 4],
        [2, 4],
        [2, 6, 4],
        [2, RARE, 4],
        [2, RARE, 4],
    ]
    first, last = Neighbours.fit(texts).ranges(key_of(np.array([2, 4, EDGE]), np.array([4, 2, EDGE])))
    words, lengths = words_of(Neighbours.fit(texts).spans)
    between = [words[j][: lengths[j]].tolist() for j in range(first[0], last[0])]
    assert between[0] == [5]
    assert sorted(between[1:]) == [[], [3]]  # twice each; 6 stands there once, a rare word says nothing
    assert first[1] == last[1]
    whole = [words[j][: lengths[j]].tolist() for j in range(first[2], last[2])]
    assert whole[0] == [2, 5, 4]
    assert sorted(whole[1:]) == [[2, 3, 4], [2, 4]]


def test_neighbours_equal_counting_by_hand():
    rng = np.random.default_rng(0)
    texts = [rng.integers(2, 6, rng.integers(1, 7)).tolist() for _ in range(60)]
    counts: Counter = Counter()
    for text in texts:
        edged = [EDGE, *text, EDGE]
        for start, length in itertools.product(range(len(edged)), range(4)):
            if start + length + 1 < len(edged):
                counts[edged[start], edged[start + length + 1], tuple(edged[start + 1 : start + length + 1])] += 1
    table = Neighbours.fit(texts, least=2, most=10**6)
    words, lengths = words_of(table.spans)
    found = {
        (int(key) >> 16, int(key) & 0xFFFF, tuple(words[j][: lengths[j]].tolist()))
        for key, start, end in zip(table.keys, table.starts, table.starts[1:], strict=False)
        for j in range(start, end)
    }
    assert found == {entry for entry, count in counts.items() if count >= 2}


# Style and content


def test_evidence_is_the_log_odds_of_its_style_and_sums_to_one_over_styles():
    texts, styles = [[2, 3], [2, 4], [2, 5]] * 30, ["a", "b", "c"] * 30
    evidence = StyleEvidence.fit(texts, styles)
    ids = padded([[2, 3], [3, 4, 5], [2]])
    chances = sum(1 / (1 + np.exp(-evidence.logit(ids, style))) for style in "abc")
    np.testing.assert_allclose(chances, 1.0, rtol=1e-5)
    assert all(evidence.logit(padded([text]), style)[0] > 0 for text, style in zip(texts[:3], styles[:3], strict=True))


def test_evidence_tells_word_orders_apart():
    texts, styles = [[2, 3, 4], [4, 3, 2]] * 30, ["a", "b"] * 30
    evidence = StyleEvidence.fit(texts, styles)
    assert evidence.logit(padded(texts[:2]), "a").tolist() == sorted(evidence.logit(padded(texts[:2]), "a"))[::-1]
    assert np.prod(evidence.logit(padded(texts[:2]), "a")) < 0


def test_words_in_equal_company_have_vectors_of_equal_direction():
    texts = [[2, w, 3] for w in (4, 5)] * 20 + [[6, 7, 8]] * 20
    vectors = word_vectors(texts, 9, dim=5)
    near = cosine(vectors[[4]], vectors[[5]])[0]
    assert near == pytest.approx(1.0)
    assert abs(cosine(vectors[[4]], vectors[[7]])[0]) < 1e-6


# Edits


def test_an_edit_makes_the_draft_that_splicing_lists_makes():
    texts = [[2, 3, 4, 5], [6, 7]]
    vectors = np.random.default_rng(0).normal(size=(9, 3))
    drafts = Drafts.of(padded(texts), 3)
    for draft, start, removed, inserted in [(0, 1, 2, [8]), (0, 0, 0, [8, 8, 8]), (1, 1, 1, []), (0, 4, 0, [2, 3])]:
        words = np.array([inserted + [EDGE] * (3 - len(inserted))], dtype=np.int64)
        edits = Edits(*(np.array([n]) for n in (draft, start, removed)), words, np.array([len(inserted)]))
        after = drafts.after(edits, vectors)
        expected = texts[draft][:start] + inserted + texts[draft][start + removed :]
        assert after.ids[0].tolist() == expected
        assert [o if o >= 0 else None for o in after.origin[0].tolist()] == (
            [*range(start)] + [None] * len(inserted) + [*range(start + removed, len(texts[draft]))]
        )
        np.testing.assert_allclose(after.removed[0], vectors[texts[draft][start : start + removed]].sum(0), atol=1e-12)
        np.testing.assert_allclose(after.inserted[0], vectors[inserted].sum(0) if inserted else np.zeros(3), atol=1e-12)
        assert after.changed[0] == max(removed, len(inserted))


def every_edit(text, table):
    """All texts that one replacement of unchanged words by what the table has between their neighbours makes."""
    words, lengths = words_of(table.spans)
    for start, removed in itertools.product(range(len(text) + 1), range(4)):
        if start + removed <= len(text):
            edged = [EDGE, *text, EDGE]
            first, last = table.ranges(key_of(np.array([edged[start]]), np.array([edged[start + removed + 1]])))
            for j in range(first[0], last[0]):
                new = words[j][: lengths[j]].tolist()
                yield text[:start] + new + text[start + removed :], text[start : start + removed], new


def test_the_search_finds_the_best_of_all_single_edits(teacher):
    text = teacher.lexicon.encode(["the", "soup", "was", "bad", "."])
    search = EditSearch(
        "pro", teacher.evidence, teacher.languages["pro"], teacher.neighbours["pro"], teacher.vectors,
        edits=1, tried=10**6, least=-np.inf,
    )  # fmt: skip
    weights, model = search.weights, teacher.languages["pro"]

    def commonplace(ids):
        return (model.log_probability(padded([ids])) - weights.commonness * model.usualness(padded([ids])))[0]

    scores = {}
    for ids, old, new in every_edit(text, teacher.neighbours["pro"]):
        scores[tuple(ids), len(old), tuple(new)] = weights.score(
            logit=teacher.evidence.logit(padded([ids]), "pro"),
            cosine=cosine(teacher.vectors[old].sum(0)[None], teacher.vectors[new].sum(0)[None]),
            changed=np.array([max(len(old), len(new))]),
            gain=np.array([commonplace(ids) - commonplace(text)]),
        )[0]
    (best, _, _), score = max(scores.items(), key=lambda item: item[1])
    found = search.rewrite(padded([text]))
    assert found.score[0] == pytest.approx(score)
    assert tuple(found.ids[0].tolist()) == best


def test_a_text_is_rewritten_by_what_the_other_pile_has_there(teacher):
    rewrites = teacher.rewrite(["the tea was awful .", "the cake was lovely ."], ["pro", "con"])
    assert rewrites[0].text in GOOD
    assert rewrites[1].text in BAD
    assert rewrites[0].text.startswith("the tea")
    assert all(rewrite.logit > 0 for rewrite in rewrites)


def test_the_rewrites_to_choose_from_are_different_and_fall_from_the_best(teacher):
    texts, styles = ["the tea was awful .", "the cake was lovely .", "xyzzy"], ["pro", "con", "con"]
    found = teacher.rewrites(texts, styles, 3)
    assert [rewrites[0] if rewrites else None for rewrites in found] == teacher.rewrite(texts, styles)
    assert [len(rewrites) for rewrites in found] == [3, 3, 0]
    for rewrites in found:
        assert len({rewrite.text for rewrite in rewrites}) == len(rewrites)
        assert [rewrite.score for rewrite in rewrites] == sorted((rewrite.score for rewrite in rewrites), reverse=True)


def test_unknown_words_and_their_spaces_stay(teacher):
    (rewrite,) = teacher.rewrite(["The  xyzzy was bad ."], ["pro"])
    assert rewrite.text in ("The  xyzzy was good .", "The  xyzzy was lovely .")


def test_a_rewrite_does_not_depend_on_the_texts_beside_it(teacher):
    together = teacher.rewrite([*BAD, "no .", "the cake was awful and the tea was bad ."], ["pro"] * 8)
    alone = [teacher.rewrite([text], ["pro"])[0] for text in [*BAD, "no .", "the cake was awful and the tea was bad ."]]
    assert [r and r.text for r in together] == [r and r.text for r in alone]


def test_a_text_that_nothing_suggests_an_edit_for_has_no_rewrite(teacher):
    assert teacher.rewrite(["xyzzy"], ["pro"]) == [None]


def test_piles_in_which_nothing_comes_twice_suggest_no_edit():
    assert EditTeacher.fit(["a b", "c d"], ["x", "y"]).rewrite(["a b"], ["y"]) == [None]


def test_a_teacher_whose_evidence_hears_other_texts_is_the_one_fitted_so(teacher):
    unheard = [i % 3 == 0 for i in range(len(TEXTS))]
    heard = [i for i, out in enumerate(unheard) if not out]
    again = teacher.hearing([TEXTS[i] for i in heard], [STYLES[i] for i in heard])
    fitted = EditTeacher.fit(TEXTS, STYLES, unheard=unheard)
    assert np.array_equal(again.evidence.weights, fitted.evidence.weights)
    assert again.rewrite(BAD, ["pro"] * len(BAD)) == fitted.rewrite(BAD, ["pro"] * len(BAD))
    with pytest.raises(ValueError, match="unheard holds every text of con"):
        teacher.hearing(GOOD, ["pro"] * len(GOOD))


def test_dearer_changes_are_fewer():
    texts = ["the soup was bad . the tea was bad ."]
    changed = []
    for keep in (0.1, 30.0):
        teacher = EditTeacher.fit(TEXTS, STYLES, weights=RewriteWeights(keep=keep, cap=20.0, fluency=0.0))
        (rewrite,) = teacher.rewrite(texts, ["pro"])
        changed.append(sum(a != b for a, b in zip(texts[0].split(), rewrite.text.split(), strict=False)))
    assert changed[0] > changed[1]


# Rewrites by others


def plain_levenshtein(x, y):
    if not x or not y:
        return len(x) + len(y)
    return min(
        plain_levenshtein(x[1:], y) + 1,
        plain_levenshtein(x, y[1:]) + 1,
        plain_levenshtein(x[1:], y[1:]) + (x[0] != y[0]),
    )


def test_word_edits_are_the_levenshtein_distance():
    rng = np.random.default_rng(0)
    x, y = ([list(map(str, rng.integers(0, 4, rng.integers(0, 6)))) for _ in range(40)] for _ in range(2))
    assert word_edits(x, y).tolist() == [plain_levenshtein(a, b) for a, b in zip(x, y, strict=True)]


def test_the_teacher_scores_its_own_rewrite_as_it_did_when_it_made_it(teacher):
    texts = ["the tea was awful .", "the soup was bad ."]
    rewrites = teacher.rewrite(texts, ["pro", "pro"])
    scores = teacher.score(texts, [rewrite.text for rewrite in rewrites], ["pro", "pro"])
    np.testing.assert_allclose(scores, [rewrite.score for rewrite in rewrites])


def test_a_copy_scores_what_its_style_says_alone(teacher):
    text = "the tea was awful ."
    logit = teacher.evidence.logit(padded([teacher.lexicon.encode(Words.of(text).words)]), "pro")
    assert teacher.score([text], [text], ["pro"]) == pytest.approx(teacher.weights.style * logit)


def test_the_best_of_several_is_in_the_style_and_keeps_the_rest(teacher):
    outputs = ["the tea was awful .", "the tea was good .", "the soup was lovely .", "good ."]
    scores = teacher.score(["the tea was awful ."] * 4, outputs, ["pro"] * 4)
    assert outputs[int(scores.argmax())] == "the tea was good ."


# Pairs


def test_pairs_go_both_ways_between_a_text_and_its_rewrite():
    pairs = teacher_pairs(TEXTS, STYLES, least_logit=0.0)
    forward = {(p["source"], p["target"]) for p in pairs}
    assert {(target, source) for source, target in forward} == forward
    assert all((p["target"] in GOOD) == (p["style"] == "pro") for p in pairs)
    assert {p["source"] for p in pairs} >= set(GOOD + BAD)


def test_count_bounds_the_texts_and_a_seed_draws_the_same():
    first, again = (teacher_pairs(TEXTS, STYLES, count=10, both_ways=False, least_logit=0.0) for _ in range(2))
    assert first == again
    assert 0 < len(first) <= 10


def test_of_two_halves_the_evidence_has_heard_one_and_the_other_is_drawn_on_in_turns():
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS)]
    halves = Halves(texts, STYLES, seed=3)
    first, styles = halves.unheard(0, len(texts))
    assert len(first) == len(texts) // 2
    assert {*zip(first, styles, strict=True)} < {*zip(texts, STYLES, strict=True)}
    turns = [text for start in range(0, len(texts), 4) for text in halves.unheard(start, 4)[0]]
    assert turns == first * 2
    heard = [(text, style) for text, style in zip(texts, STYLES, strict=True) if text not in first]
    by_hand = halves.teacher.hearing(*zip(*heard, strict=True), seed=3)
    assert np.array_equal(halves.teacher.evidence.weights, by_hand.evidence.weights)
    assert halves.pairs(10, least_logit=0.0) == teacher_pairs(texts, STYLES, count=10, least_logit=0.0, seed=3)
    assert {pair["source"] for pair in halves.pairs(10, least_logit=0.0, both_ways=False)} <= {*first[:10]}


def test_what_no_teacher_can_be_fitted_on_is_refused():
    with pytest.raises(ValueError, match="must name two at least"):
        EditTeacher.fit(GOOD, ["pro"] * len(GOOD))
    with pytest.raises(ValueError, match="styles of length 1 must be as long as texts, 6"):
        EditTeacher.fit(GOOD, ["pro"])
    with pytest.raises(ValueError, match="unheard holds every text of con"):
        EditTeacher.fit(TEXTS, STYLES, unheard=[style == "con" for style in STYLES])
    with pytest.raises(ValueError, match="lower it"):
        teacher_pairs(TEXTS, STYLES, least_logit=1e9)
