"""Options from YAML and from the command line, and what is said of wrong ones."""

import argparse

import pytest
from transformers.trainer_utils import IntervalStrategy

from style_adapter import StyleAdapterConfig
from style_adapter.arguments import StyleTrainingArguments
from style_adapter.recipe import SECTIONS, add_options, load_recipe, parse_value, section_fields, typed_value

NEEDED = {"model_name_or_path": "org/tiny", "train_file": "rows.jsonl"}


def test_a_file_is_read_and_options_of_the_command_line_win(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model_name_or_path: org/tiny\ntrain_file: rows.jsonl\nstyles: [loud, calm]\nlearning_rate: 1e-3\nr: 4\n"
        f"alpha: 8\noutput_dir: {tmp_path}\nlogging_steps: 10\neval_strategy: no\nalpha_pattern: {{q_proj: 1e1}}\n"
        "max_steps: 1e2\nreport_to: none\nprompt: '{source} =>'\n",
        "utf-8",
    )
    recipe = load_recipe(path, {"r": 2, "w_adv": 0.5})
    assert recipe.training.learning_rate == 1e-3
    assert (recipe.adapter.r, recipe.adapter.alpha, recipe.adapter.styles) == (2, 8.0, ["loud", "calm"])
    assert recipe.adapter.alpha_pattern == {"q_proj": 10.0}
    assert recipe.adapter.prompt == "{source} =>"
    assert recipe.adapter.target_modules == "all-linear"
    assert (recipe.training.max_steps, recipe.training.w_adv) == (100, 0.5)
    assert recipe.training.eval_strategy == IntervalStrategy.NO
    assert recipe.model.model_name_or_path == "org/tiny"
    assert recipe.given["r"] == 2


def test_every_field_of_every_section_is_an_option_with_its_help_line():
    parser = argparse.ArgumentParser()
    add_options(parser)
    shown = "".join(parser.format_help().split())  # lines break at hyphens too
    for cls in SECTIONS.values():
        for option in section_fields(cls):
            assert option.metadata.get("help"), option.name
            assert f"--{option.name}{option.name.upper()}" in shown, option.name
            assert "".join(option.metadata["help"].split()) in shown, option.name


def test_no_option_belongs_to_two_sections():
    names = [option.name for cls in SECTIONS.values() for option in section_fields(cls)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2.5E4", -2.5e4),
        ("3", 3),
        ("[1e-3, b]", [1e-3, "b"]),
        ("{kjv: 0.7, modern: 3e-1}", {"kjv": 0.7, "modern": 0.3}),
        ("kjv", "kjv"),
        ("true", True),
        ("null", None),
        ("e5", "e5"),
    ],
)
def test_values_are_yaml_and_scientific_numbers_are_numbers(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("cls", "name", "value", "expected"),
    [
        (StyleAdapterConfig, "alpha", 8, 8.0),
        (StyleAdapterConfig, "r", 8.0, 8),
        (StyleAdapterConfig, "target_modules", ["q_proj"], ["q_proj"]),
        (StyleAdapterConfig, "default_style", None, None),
        (StyleTrainingArguments, "save_strategy", False, "no"),
        (StyleTrainingArguments, "eval_steps", 100, 100.0),
        (StyleTrainingArguments, "report_to", ["tensorboard"], ["tensorboard"]),
        (StyleTrainingArguments, "bf16", True, True),
    ],
)
def test_values_take_the_type_of_their_field(cls, name, value, expected):
    assert typed_value(cls, name, value) == expected
    assert type(typed_value(cls, name, value)) is type(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"larning_rate": 1e-3}, "'larning_rate' is no option; did you mean 'learning_rate'?"),
        ({"xyzzy": 1}, "'xyzzy' is no option$"),
        ({"r": "sixteen"}, "r='sixteen' must be int; correct it in the recipe"),
        ({"r": 2.5}, "r=2.5 must be int; correct it in the recipe"),
        ({"r": True}, "r=True must be int; correct it in the recipe"),
        ({"learning_rate": "fast"}, "learning_rate='fast' must be float; correct it in the recipe"),
        ({"styles": "kjv"}, r"styles='kjv' must be list\[str\]; correct it in the recipe"),
        ({"bf16": "sure"}, "bf16='sure' must be bool; correct it in the recipe"),
        ({"default_style": 3}, r"default_style=3 must be str \| None; correct it in the recipe"),
        ({"train_file": None}, "'train_file' is missing .* or as --train_file, or give piles of text as --unpaired"),
        ({"train_file": 3}, r"train_file=3 must be str \| None; correct it in the recipe"),
    ],
)
def test_a_wrong_option_is_named_with_the_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(None, {**NEEDED, **options})


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_option_is_named_with_the_remedy(missing):
    given = {name: value for name, value in NEEDED.items() if name != missing}
    with pytest.raises(
        ValueError, match=f"'{missing}' is missing and must be set; add it to the recipe or as --{missing}"
    ):
        load_recipe(None, given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("styles: [a", "must be YAML: .* expected ',' or ']'"),
        ("- r", "must hold `option: value` lines, found list"),
        ("just words", "must hold `option: value` lines, found str"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_recipe(path, {})
    assert "\n" not in str(error.value)
