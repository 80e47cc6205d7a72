"""Statistics of samples: against counts by hand, and what a copier, a loop and a collapse do to them."""

import zlib

import numpy as np
import pytest
import sacrebleu

from style_adapter.metrics import (
    SampleReport,
    StyleJudge,
    compression_ratio,
    distinct_n,
    expected_distinct,
    mutual_bleu,
    repetition_rate,
    same_output_rate,
    sentence_chrf,
)

SOURCES = ["you are here", "he has gone", "we shall see it", "they know it not"]
JUDGE = StyleJudge.fit(["a b!", "c!", "d e!", "a b.", "c.", "d e."], ["loud"] * 3 + ["calm"] * 3)


def test_distinct_n_counts_each_ngram_of_all_texts_once():
    # a b, b a, a b, b a | a b: 2 different ones of 5; alone, the letters: 2 of 7.
    assert distinct_n(["a b a b a", "a b"], 2) == 2 / 5
    assert distinct_n(["a b a b a", "a b"], 1) == 2 / 7
    assert distinct_n(["a", ""], 2) == 1.0


def test_expected_distinct_is_one_for_words_drawn_evenly_however_many_are_drawn():
    random = np.random.default_rng(0)
    for size in (50, 500, 5000):
        texts = [" ".join(map(str, random.integers(100, size=size))) for _ in range(100)]
        found = [expected_distinct([text], vocabulary=100) for text in texts]
        assert np.mean(found) == pytest.approx(1, abs=0.03)
    assert distinct_n(texts, 1) < 0.01  # which falls with their number
    assert expected_distinct(["a b a", "c"], vocabulary=10) == pytest.approx(3 / (10 * (1 - 0.9**4)))
    assert expected_distinct(["", ""]) == 0.0
    with pytest.raises(ValueError, match="vocabulary=0 must be >= 1"):
        expected_distinct(["a"], vocabulary=0)


def test_mutual_bleu_is_the_mean_of_sacrebleus_scores_against_all_others():
    texts = [*SOURCES, "we shall see it here", "it it it", "it", "", "they know it not", "we we shall shall, it?"]
    expected = [
        sacrebleu.sentence_bleu(text, [*texts[:i], *texts[i + 1 :]], use_effective_order=True).score
        for i, text in enumerate(texts)
    ]
    assert mutual_bleu(texts) == pytest.approx(np.mean(expected))
    assert mutual_bleu(["so it goes on"] * 3) == pytest.approx(100)
    assert mutual_bleu(["so it goes on"]) == 0.0


def test_compression_is_that_of_deflate_and_grows_where_texts_repeat():
    deflate = zlib.compressobj(9, wbits=31)  # with gzip's header
    joined = "\n".join(SOURCES).encode()
    assert compression_ratio(SOURCES) == len(joined) / len(deflate.compress(joined) + deflate.flush())
    assert compression_ratio(SOURCES * 9) > 5 * compression_ratio(SOURCES)


def test_ngrams_do_not_cross_from_one_text_to_the_next():
    assert distinct_n(["a b", "b a"], 2) == distinct_n(["a b"], 2) == 1.0
    assert repetition_rate(["a b c", "a b c"]) == 0.0


def test_repetition_is_counted_within_the_window_alone():
    between = " ".join(map(str, range(30)))
    assert repetition_rate([f"a b c {between} a b c"], window=33) == 1 / 34
    assert repetition_rate([f"a b c {between} a b c"], window=32) == 0.0
    assert repetition_rate(["go " * 12]) == 9 / 10  # ten trigrams, of which the first is new


def test_one_answer_to_everything_is_told_from_one_answer_in_both_styles():
    assert same_output_rate(["yes"] * 4, SOURCES) == 1.0
    assert same_output_rate(["a", "a", "b", "b"], ["x", "x", "y", "y"]) == 0.0
    assert same_output_rate(["yes", "yes", "yes", "no"], SOURCES) == pytest.approx(2 / 3)
    assert same_output_rate(["yes"] * 3, [""] * 3) == 0.0  # from nothing, greedily: nothing else could be written


def report(outputs: list[str], judge: StyleJudge | None = JUDGE) -> SampleReport:
    return SampleReport.of(outputs, SOURCES, ["loud"] * 4, judge=judge)


def test_a_report_shows_a_copier_a_loop_and_a_collapse_and_none_of_them_in_good_samples():
    good = report([f"{source.upper()}!" for source in SOURCES])
    assert (good.style_accuracy, good.copy_rate, good.repetition_rate, good.same_output) == (1.0, 0.0, 0.0, 0.0)
    copied, looped, collapsed = report(SOURCES), report(["no no no no no no"] * 4), report(["it is so!"] * 4)
    assert (copied.copy_rate, copied.content, copied.length_ratio) == (1.0, 1.0, 1.0)
    assert looped.repetition_rate == 3 / 4
    assert (collapsed.same_output, collapsed.distinct_2, collapsed.style_accuracy) == (1.0, 2 / 8, 1.0)
    assert collapsed.content < good.content + 0.2


def test_content_is_the_mean_chrf_to_the_sources_and_the_ratio_that_of_words():
    outputs = ["you are", "he has gone away", "we see", "they know it not"]
    found = report(outputs, judge=None)
    assert found.content == pytest.approx(sum(sentence_chrf(outputs, SOURCES)) / 4)
    assert found.length_ratio == pytest.approx((2 / 3 + 4 / 3 + 2 / 4 + 1) / 4)
    assert found.style_accuracy is None
    assert "style_accuracy" not in found.to_dict()


def test_texts_written_from_nothing_are_compared_with_one_another_alone():
    found = SampleReport.of(["so it is", "so it is", "so be it"], None, ["loud"] * 3, judge=None)
    assert found.to_dict() == {"repetition_rate": 0.0, "distinct_2": 4 / 6, "same_output": 1 / 2}


def test_texts_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match=r"texts=\[\] must hold at least one line"):
        distinct_n([])
    with pytest.raises(ValueError, match="sources of length 1 must be as long as outputs, 2"):
        same_output_rate(["a", "b"], ["a"])
