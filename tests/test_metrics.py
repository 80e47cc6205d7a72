"""Each measure against sacrebleu, scikit-learn, a textbook BLEU, or a value worked out by hand."""

import json
import math
import sys
from collections import Counter
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import sacrebleu
from sklearn.metrics import accuracy_score

from style_adapter.metrics import (
    StyleJudge,
    TransferScore,
    bleu,
    copy_rate,
    markdown_table,
    repeat_rate,
    score_transfer,
    sentence_bleu,
    sentence_chrf,
)

OLD = ["thou art here", "thou hast gone", "ye shall see", "he saith unto thee", "thou knowest not", "ye do err"]
NEW = ["you are here", "you have gone", "you will see", "he says to you", "you don't know", "you are wrong"]
HYPOTHESES = ["the cat sat on the mat today", "he went to the house of his father", "you will see him there soon"]
REFERENCES = [
    ["the cat sat on a mat today", "today the cat sat on the mat"],
    ["he went into the house of his father"],
    ["you shall see him there", "soon you will see him in that place", "you will see him soon"],
]


@pytest.fixture(scope="module")
def judge() -> StyleJudge:
    return StyleJudge.fit(OLD + NEW, ["old"] * len(OLD) + ["new"] * len(NEW))


def nearest_length(text: str, lines: list[str]) -> int:
    """Words of the reference whose length is nearest to the text's, the shorter of two."""
    return min((len(line.split()) for line in lines), key=lambda size: (abs(size - len(text.split())), size))


def textbook_bleu(hypotheses: list[str], references: list[list[str]]) -> float:
    """BLEU as Papineni et al. (2002) print it, for texts whose tokens are what spaces separate."""
    log_precision = 0.0
    for n in range(1, 5):
        hits = total = 0
        for text, lines in zip(hypotheses, references, strict=True):
            found, *allowed = [Counter(zip(*[t.split()[k:] for k in range(n)], strict=False)) for t in [text, *lines]]
            hits += sum(min(count, max(line[gram] for line in allowed)) for gram, count in found.items())
            total += found.total()
        log_precision += math.log(hits / total) / 4
    c = sum(len(text.split()) for text in hypotheses)
    r = sum(nearest_length(text, lines) for text, lines in zip(hypotheses, references, strict=True))
    return 100 * math.exp(min(0.0, 1 - r / c) + log_precision)


def test_bleu_equals_the_textbook_with_one_and_with_uneven_references():
    first = [lines[0] for lines in REFERENCES]
    assert bleu(HYPOTHESES, first) == pytest.approx(textbook_bleu(HYPOTHESES, [[line] for line in first]))
    assert bleu(HYPOTHESES, REFERENCES) == pytest.approx(textbook_bleu(HYPOTHESES, REFERENCES))
    assert bleu(HYPOTHESES, REFERENCES) > bleu(HYPOTHESES, first)


def test_bleu_equals_sacrebleu_on_punctuated_text():
    hypotheses, references = (
        ['He said, "Come; see!"', "Don't go, he said."],
        ['He said: "Come, see!"', "He said not to go."],
    )
    assert bleu(hypotheses, references) == sacrebleu.corpus_bleu(hypotheses, [references]).score


def test_bleu_is_100_for_the_reference_and_0_for_other_words():
    assert bleu(HYPOTHESES, HYPOTHESES) == pytest.approx(100)
    assert bleu(["alpha beta gamma delta epsilon"], ["one two three four five"]) == 0


def test_counts_of_the_papers_example_are_clipped():
    # Papineni et al. (2002), example 2: of seven times "the" a reference allows two; the zero counts of the longer
    # n-grams, 6, 5 and 4 in all, become 1/2, 1/4 and 1/8 (Chen and Cherry 2014, method 3).
    expected = 100 * (2 / 7 * 1 / (2 * 6) * 1 / (4 * 5) * 1 / (8 * 4)) ** 0.25
    assert sentence_bleu(["the the the the the the the"], ["the cat is on the mat"]) == [pytest.approx(expected)]


def test_sentence_bleu_equals_sacrebleu_line_by_line():
    expected = [sacrebleu.sentence_bleu(text, lines).score for text, lines in zip(HYPOTHESES, REFERENCES, strict=True)]
    assert sentence_bleu(HYPOTHESES, REFERENCES) == expected


def textbook_chrf(text: str, line: str) -> float:
    """chrF as Popovic (2015) prints it, beta 2: precision and recall averaged over the orders that both lines have."""
    rates = []
    for n in range(1, 7):
        found, wanted = (Counter(zip(*[t.replace(" ", "")[k:] for k in range(n)], strict=False)) for t in (text, line))
        if found and wanted:
            hits = (found & wanted).total()
            rates.append((hits / found.total(), hits / wanted.total()))
    p, r = np.mean(rates, axis=0)
    return 5 * p * r / (4 * p + r)


def test_sentence_chrf_equals_the_textbook_and_takes_the_best_reference():
    expected = [max(textbook_chrf(t, line) for line in lines) for t, lines in zip(HYPOTHESES, REFERENCES, strict=True)]
    assert sentence_chrf(HYPOTHESES, REFERENCES) == pytest.approx(expected)
    assert sentence_chrf(["he said", "", "xyz"], ["he said"] * 3) == [1.0, 0.0, 0.0]


def test_copy_rate_counts_lines_that_differ_in_whitespace_alone():
    assert copy_rate(["a b", " a  b ", "A b", "a"], ["a b", "a b", "a b", "a b"]) == 0.5


def test_repeat_rate_counts_texts_that_differ_from_a_known_one_in_whitespace_alone():
    assert repeat_rate(["a b", " a  b ", "A b", "c"], ["x", "a b"]) == 0.5


def test_judge_predicts_unseen_words_of_a_style_and_its_accuracy_is_scikit_learns(judge):
    texts, styles = ["thou seest", "you see", "you go", "he goeth unto them"], ["old", "new", "old", "old"]
    assert judge.predict(texts) == ["old", "new", "new", "old"]
    assert judge.accuracy(texts, styles) == accuracy_score(styles, judge.predict(texts)) == 0.75


def test_judge_finds_nothing_in_styles_without_a_difference(judge):
    same = StyleJudge.fit(OLD + OLD, ["old"] * len(OLD) + ["new"] * len(OLD))
    assert same.probability(OLD, "old") == pytest.approx(0.5, abs=1e-6)
    assert min(judge.probability(OLD, "old")) > 0.6


def test_probabilities_of_three_styles_sum_to_one_and_the_largest_is_predicted():
    texts = ["good", "lovely day", "bad", "awful day", "a day", "the hour"]
    judge = StyleJudge.fit(texts, ["positive", "positive", "negative", "negative", "neutral", "neutral"])
    table = np.stack([judge.probability(texts, style) for style in judge.styles], axis=1)
    assert judge.styles == ("negative", "neutral", "positive")
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert [judge.styles[k] for k in table.argmax(axis=1)] == judge.predict(texts)


def test_equal_data_gives_equal_bits(judge):
    again = StyleJudge.fit(OLD + NEW, ["old"] * len(OLD) + ["new"] * len(NEW))
    assert np.array_equal(again.probability(NEW, "new"), judge.probability(NEW, "new"))


def test_judge_and_score_cannot_be_changed(judge):
    with pytest.raises(FrozenInstanceError):
        judge.styles = ("new",)
    with pytest.raises(FrozenInstanceError):
        TransferScore(1.0, 100.0, 0.0).bleu = 0.0


def test_score_transfer_scores_each_direction_from_its_own_lines(judge):
    sources = [NEW[0], OLD[1], NEW[2], OLD[3]]
    references = [OLD[0], NEW[1], OLD[2], NEW[3]]
    outputs = [OLD[0], OLD[1], NEW[2], NEW[3]]  # right, copied, copied, right
    scores = score_transfer(outputs, sources, references, ["old", "new", "old", "new"], judge=judge)
    assert list(scores) == ["old", "new"]
    assert scores["old"].style_accuracy == scores["new"].style_accuracy == 0.5
    assert scores["old"].bleu == bleu([OLD[0], NEW[2]], [OLD[0], OLD[2]])
    assert scores["old"].self_bleu == bleu([OLD[0], NEW[2]], [NEW[0], NEW[2]])
    assert scores["new"].bleu == bleu([OLD[1], NEW[3]], [NEW[1], NEW[3]])
    assert json.loads(json.dumps(scores["new"].to_dict())) == {
        "style_accuracy": 0.5,
        "bleu": scores["new"].bleu,
        "self_bleu": scores["new"].self_bleu,
    }


def test_sources_as_references_give_self_bleu(judge):
    score = score_transfer(OLD, NEW, NEW, ["old"] * len(OLD), judge=judge)["old"]
    assert score.bleu == score.self_bleu


def test_a_table_is_aligned_with_names_on_the_left_and_numbers_on_the_right():
    lines = markdown_table(
        ["to", "run", "BLEU"], [["kjv", "before", "30.0"], ["modern", "a", "9.5"]], names=2
    ).splitlines()
    assert len(set(map(len, lines))) == 1
    assert lines[1] == "| ------ | ------ | ---: |"
    assert lines[3] == "| modern | a      |  9.5 |"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda judge: StyleJudge.fit([], []), r"texts=\[\] must hold at least one line"),
        (lambda judge: StyleJudge.fit(["a", "b"], ["x"]), "styles of length 1 must be as long as texts, 2"),
        (lambda judge: StyleJudge.fit(["a", "b"], ["x", "x"]), r"styles=\['x'\] must name at least 2 styles"),
        (lambda judge: judge.predict([]), r"texts=\[\] must hold"),
        (lambda judge: judge.probability(OLD, "odd"), r"style='odd' must be one of \['new', 'old'\]; fit the judge"),
        (lambda judge: judge.accuracy(["a"], ["odd"]), "style='odd' must be one of"),
        (lambda judge: bleu([], []), r"hypotheses=\[\] must hold"),
        (lambda judge: bleu(["a"], ["a", "b"]), "references of length 2 must be as long as hypotheses, 1"),
        (lambda judge: bleu(["a", "b"], [["a"], []]), r"references\[1\]=\[\] must hold at least one reference"),
        (lambda judge: copy_rate(["a"], []), "sources of length 0 must be as long as hypotheses, 1"),
        (lambda judge: score_transfer(["a"], ["a"], ["a"], [], judge=judge), "styles of length 0 must be as long as"),
        (lambda judge: score_transfer(["a"], ["a"], ["a"], ["odd"], judge=judge), "style='odd' must be one of"),
        (lambda judge: markdown_table(["a"], []), r"rows=\[\] must hold at least one row"),
        (lambda judge: markdown_table(["a"], [["b", "c"]]), r"row \['b', 'c'\] must have one cell for each of \['a'\]"),
    ],
)
def test_errors_name_the_argument_its_bound_and_its_value(judge, call, message):
    with pytest.raises(ValueError, match=message):
        call(judge)


def test_one_string_in_place_of_a_list_is_refused(judge):
    with pytest.raises(TypeError, match=r"texts='thou art' must be a list .* pass \['thou art'\]"):
        judge.predict("thou art")
    with pytest.raises(TypeError, match="references='a' must be a list"):
        bleu(["a"], "a")


@pytest.mark.parametrize(
    ("module", "call", "message"),
    [
        ("sacrebleu", lambda: bleu(["a"], ["a"]), "bleu needs sacrebleu; pip install 'style_adapter\\[eval\\]'"),
        (
            "sklearn.pipeline",
            lambda: StyleJudge.fit(["a", "b"], ["x", "y"]),
            "StyleJudge needs scikit-learn; pip install 'style_adapter\\[eval\\]'",
        ),
    ],
)
def test_a_missing_extra_says_what_to_install(monkeypatch, module, call, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        call()
