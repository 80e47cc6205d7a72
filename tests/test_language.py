"""The mixing language: against Python's own arithmetic on styles, and back and forth for any names."""

import random
import re

import pytest

from style_adapter import OFF, Style, StyleBank, blend
from style_adapter.style import quoted

NAMES = (
    "kjv",
    "modern",
    "sci",
    "fi",
    "sci-fi",
    "old english",
    "rock + roll",
    "7",
    "off",
    "2nd",
    "中文",
    'a"b',
    "x - y",
)


@pytest.fixture
def bank() -> StyleBank:
    """Styles with plain and with unpleasant names."""
    return StyleBank(NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "kjv",
        "0.7*kjv + 0.3*modern",
        "0.7 * kjv+.3*modern",
        "kjv - modern",
        "kjv-modern",
        "-kjv",
        "kjv + -1*modern",
        "kjv * 2 / 4",
        "2 * 3 * kjv",
        "6 / 3 * kjv",
        "-(kjv - 2*(modern + kjv)) / 4",
        "kjv + kjv",
        "1e-3*kjv + 2.5E+1*modern",
        "  kjv   +   modern ",
        "blend(7*kjv, 3*modern)",
        "2 * blend(kjv, modern - kjv / 2) - modern",
    ],
)
def test_a_mixture_in_words_is_the_one_that_python_computes(bank, text):
    assert bank.parse(text) == eval(text, {"kjv": bank["kjv"], "modern": bank["modern"], "blend": blend})


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("sci-fi", {"sci-fi": 1.0}),
        ("sci - fi", {"sci": 1.0, "fi": -1.0}),
        ("2*sci-fi", {"sci-fi": 2.0}),
        ("sci-kjv", {"sci": 1.0, "kjv": -1.0}),
        ("0.5*old english + kjv", {"old english": 0.5, "kjv": 1.0}),
        ("rock + roll", {"rock + roll": 1.0}),
        ('2*"rock + roll"', {"rock + roll": 2.0}),
        ("2*rock + roll", {"rock + roll": 2.0}),
        ("7", {"7": 1.0}),
        ('7*"7"', {"7": 7.0}),
        ("off", {"off": 1.0}),
        ("2*2nd", {"2nd": 2.0}),
        ("0.5*中文", {"中文": 0.5}),
        (r'"a\"b" / 2', {'a"b': 0.5}),
        ("x - y", {"x - y": 1.0}),
    ],
)
def test_the_longest_name_wins_and_quotes_hold_any(bank, text, weights):
    assert bank.parse(text) == Style(weights)


def test_off_is_the_empty_mixture_where_no_style_has_that_name():
    bank = StyleBank(("kjv",))
    assert bank.parse("off") == OFF
    assert bank.parse("kjv + off") == bank["kjv"]


def test_what_is_written_is_read_back_for_any_names_and_weights(bank):
    draw = random.Random(0)
    for _ in range(500):
        names = draw.sample(NAMES, draw.randint(1, 5))
        style = Style({name: round(draw.uniform(-2, 2), 4) for name in names})
        assert bank.parse(str(style)) == style
        assert bank.labels([style]) == [str(style)]
    assert [bank.parse(str(bank[name])) for name in NAMES] == [bank[name] for name in NAMES]


def test_names_are_quoted_only_where_they_must_be():
    assert [name for name in NAMES if quoted(name) != name] == ["rock + roll", "7", "off", "2nd", 'a"b']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kjb", "styles='kjb' must be one of the adapter's styles: kjv, modern; "),
        ("0.7*kjb + 0.3*modern", "styles='0.7*kjb + 0.3*modern', column 5: 'kjb' must be one of the adapter's styles:"),
        ("0.7*kjv + ", "column 11: a style or a number must stand here"),
        ("kjv + 3", "column 7: '3' must be followed by * and a style"),
        ("kjv + 3*4", "column 7: '3*4' must be followed by * and a style"),
        ("kjv * modern", "column 7: a style must be multiplied by a number; styles are added"),
        ("kjv / 0", "column 7: what a style is divided by must be a number other than 0"),
        ("2 / kjv", "column 5: what a style is divided by must be a number other than 0"),
        ("(kjv + modern", "column 14: ')' must stand here"),
        ("kjv + modern)", "column 13: ')' must be one of + - * / or the end; names with such signs are quoted"),
        ("0.5*kjv modern", "column 9: 'm' must be one of + - * / or the end;"),
        ("blend kjv + modern", "column 7: '(' must stand here"),
        (
            "blend(kjv - modern)",
            "column 1: blend takes weights whose sum is > 0 and got 0; a difference is written a - b",
        ),
        ("kjv + 0.5*7", "column 7: '0.5*7' must be followed by * and a style"),
        ("kjv++", "column 6: a style or a number must stand here"),
        ("(" * 5000 + "kjv" + ")" * 5000, "signs and brackets are nested too deeply; write a sum"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_column(text, message):
    bank = StyleBank(("kjv", "modern"))
    with pytest.raises(ValueError, match=re.escape(message)):
        bank.parse(text)


def test_blend_is_as_strong_as_one_style_and_a_plain_sum_is_not():
    kjv, modern = Style({"kjv": 1.0}), Style({"modern": 1.0})
    assert blend(kjv, modern) == (kjv + modern) / 2
    assert blend(3 * kjv, modern) == 0.75 * kjv + 0.25 * modern
    assert sum((kjv + modern).weights.values()) == 2.0


def test_two_of_a_hundred_thousand_styles_are_found():
    bank = StyleBank(tuple(f"user {i}" for i in range(100_000)))
    style = bank.parse("0.5*user 99999 + 0.5*user 3")
    assert style == Style({"user 99999": 0.5, "user 3": 0.5})
