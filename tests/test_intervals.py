"""Intervals and tests of significance against scipy, sacrebleu, an explicit loop, and closed forms."""

from functools import partial

import numpy as np
import pytest
import sacrebleu
from sacrebleu.significance import PairedTest
from scipy import stats

from style_adapter.metrics import LineSums, TextNumber, bleu, difference, distinct_n, groups_of
from style_adapter.metrics.intervals import mean_of, ratio
from style_adapter.metrics.transfer import bleu_counts, bleu_of_counts

RANDOM = np.random.default_rng(7)
VALUES, OTHERS = RANDOM.random(60), RANDOM.random(60) * 0.9
ALL = [np.arange(60)]
WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "in", "mat", "house", "today", "there"]
REFERENCES = [" ".join(RANDOM.choice(WORDS, size=8)) for _ in range(40)]


def noisy(share: float, seed: int) -> list[str]:
    """The references with some words drawn anew."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS) if random.random() < share else w for w in r.split()) for r in REFERENCES]


def test_the_interval_is_that_of_an_explicit_bootstrap_loop():
    random = np.random.default_rng(3)
    drawn = [VALUES[random.integers(60, size=60)].mean() for _ in range(500)]
    found = mean_of(VALUES).estimate(ALL, samples=500, seed=3)
    assert found.value == pytest.approx(VALUES.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert found == mean_of(VALUES).estimate(ALL, samples=500, seed=3)
    assert found != mean_of(VALUES).estimate(ALL, samples=500, seed=4)


def test_the_interval_of_a_mean_and_of_a_ratio_is_scipys():
    def of(x, y, axis=-1):
        return x.sum(axis) / y.sum(axis)

    settings = {"method": "percentile", "n_resamples": 20_000, "rng": 1}
    mean = stats.bootstrap((VALUES,), np.mean, **settings).confidence_interval
    found = mean_of(VALUES).estimate(ALL, samples=20_000)
    assert (found.low, found.high) == pytest.approx((mean.low, mean.high), abs=2e-3)
    sizes = RANDOM.integers(1, 9, size=60).astype(float)
    paired = stats.bootstrap((VALUES, sizes), of, paired=True, vectorized=True, **settings).confidence_interval
    found = LineSums(np.stack([VALUES, sizes], axis=1), ratio).estimate(ALL, samples=20_000)
    assert (found.low, found.high) == pytest.approx((paired.low, paired.high), abs=2e-3)


def test_directions_keep_their_sizes_and_weigh_the_same_in_a_mean():
    values, styles = [1.0] * 50 + [0.0] * 10, ["a"] * 50 + ["b"] * 10
    groups = groups_of(styles, 60)
    assert {style: len(rows) for style, rows in groups.items()} == {"a": 50, "b": 10}
    both = mean_of(values).estimate(list(groups.values()))
    # No line of either direction differs from the others of it: whatever is drawn, the mean is (1 + 0) / 2.
    assert (both.value, both.low, both.high) == (0.5, 0.5, 0.5)
    together = mean_of(values).estimate([np.arange(60)])
    assert together.low < together.value < together.high


def test_the_same_lines_are_drawn_for_both_systems():
    shifted = difference(mean_of(VALUES + 0.25), mean_of(VALUES), ALL)
    assert (shifted.value, shifted.low, shifted.high) == pytest.approx((0.25, 0.25, 0.25))
    assert shifted.p_value == pytest.approx(1 / 1001)


@pytest.mark.parametrize("gap", [0.0, 0.12, 0.3])
def test_p_is_the_exact_permutation_tests(gap):
    one, other = VALUES[:10] + gap, OTHERS[:10]
    exact = stats.permutation_test(  # all 2^10 ways of swapping
        (one, other), lambda x, y, axis: x.mean(axis) - y.mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    found = difference(mean_of(one), mean_of(other), [np.arange(10)], samples=20_000)
    assert found.p_value == pytest.approx(exact.pvalue, abs=0.012)


def test_a_system_does_not_differ_from_itself():
    found = difference(mean_of(VALUES), mean_of(VALUES), ALL)
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    texts = TextNumber(REFERENCES, distinct_n)
    assert difference(texts, texts, [np.arange(40)]).p_value == 1.0


def test_bleus_interval_and_p_are_sacrebleus():
    one, other, rows = noisy(0.2, 1), noisy(0.3, 2), [np.arange(40)]
    mine, theirs = (LineSums(bleu_counts(texts, REFERENCES), bleu_of_counts) for texts in (one, other))
    found, settings = mine.estimate(rows, samples=2000), {"n_bootstrap": 2000}
    expected = sacrebleu.BLEU().corpus_score(one, [REFERENCES], **settings)
    assert found.value == expected.score == bleu(one, REFERENCES)
    assert (found.high - found.low) / 2 == pytest.approx(expected._ci, rel=0.1)
    systems, metrics = [("other", other), ("one", one)], {"BLEU": sacrebleu.BLEU(references=[REFERENCES])}
    _, tested = PairedTest(systems, metrics, references=None, test_type="ar", n_samples=5000)()
    assert difference(mine, theirs, rows, samples=5000).p_value == pytest.approx(tested["BLEU"][1].p_value, abs=0.03)


def test_counts_of_several_references_sum_to_sacrebleus_corpus_bleu():
    texts, second = noisy(0.4, 3), noisy(0.5, 4)
    sums = bleu_counts(texts, list(zip(REFERENCES, second, strict=True)), lowercase=True).sum(axis=0, keepdims=True)
    assert bleu_of_counts(sums)[0] == sacrebleu.corpus_bleu(texts, [REFERENCES, second], lowercase=True).score


def mean_length(texts):
    return float(np.mean([len(text) for text in texts]))


def test_the_jackknife_of_a_mean_has_its_standard_error():
    texts = ["x" * n for n in (3, 9, 4, 1, 7, 7, 2, 12)]  # fewer than the blocks: each is left out alone
    lengths = np.array([len(text) for text in texts])
    found = TextNumber(texts, mean_length).estimate([np.arange(8)])
    assert found.value == lengths.mean()
    assert found.high - found.value == pytest.approx(1.96 * stats.sem(lengths))
    other = ["x" * n for n in (5, 8, 6, 2, 9, 9, 1, 11)]
    change = lengths - np.array([len(text) for text in other])
    tested = difference(TextNumber(texts, mean_length), TextNumber(other, mean_length), [np.arange(8)])
    assert tested.p_value == pytest.approx(2 * stats.norm.sf(abs(change.mean()) / stats.sem(change)))


def test_the_jackknife_covers_variety_where_repeated_lines_would_not():
    # 300 lines of two words of 30: over many such sets, the interval holds the variety of such sets about as promised.
    def drawn(seed):
        words = np.random.default_rng(seed).integers(30, size=(300, 2))
        return [f"{a} {b}" for a, b in words]

    of = partial(distinct_n, n=2)
    truth = np.mean([of(drawn(1000 + seed)) for seed in range(50)])
    found = [TextNumber(drawn(seed), of).estimate([np.arange(300)]) for seed in range(40)]
    assert np.mean([one.low <= truth <= one.high for one in found]) > 0.8
    again = np.random.default_rng(0).integers(300, size=300)
    assert of([drawn(0)[row] for row in again]) < found[0].low


def test_a_single_line_has_no_width_and_numbers_of_two_kinds_are_not_compared():
    found = TextNumber(["a b a b"], distinct_n).estimate([np.arange(1)])
    assert found.low == found.value == found.high
    with pytest.raises(TypeError, match="other=TextNumber must be a LineSums"):
        difference(mean_of([1.0]), TextNumber(["a"], distinct_n), [np.arange(1)])


def test_nothing_over_nothing_is_no_number():
    found = LineSums(np.array([[0.0, 0.0], [4.0, 2.0]]), ratio)
    assert np.isnan(found.estimate([np.arange(1)]).value)
    assert found.estimate([np.arange(2)]).low == 2.0
