"""The options of a run: their bounds, and what they make of Trainer's."""

from dataclasses import fields

import pytest
from training_fixtures import arguments

from style_adapter.arguments.adversary import AdversaryOptions
from style_adapter.arguments.objective import ObjectiveOptions
from style_adapter.arguments.watching import WatchOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "chess"}, "game='chess' must be one of minimax, non_saturating, hinge, relativistic"),
        ({"task": "translation"}, "task='translation' must be one of transfer, unpaired, classification"),
        ({"w_adv": -1.0}, "w_adv=-1.0 must be >= 0; 0 turns the term off"),
        ({"adversary_fraction": 1.5}, r"adversary_fraction=1.5 must be in \[0, 1\]; 0 turns the game off"),
        ({"discriminator_smoothing": 1.0}, r"discriminator_smoothing=1.0 must be in \[0, 1\); 0.1 is usual"),
        (
            {"game": "hinge", "discriminator_smoothing": 0.1},
            "discriminator_smoothing=0.1 must be 0 in the hinge game, .* set it to 0",
        ),
        ({"temperature": 0.0}, "temperature=0.0 must be > 0; 1 changes nothing"),
        ({"novel_token_weight": 0.0}, "novel_token_weight=0.0 must be > 0; 1 changes nothing"),
        ({"max_length": 0}, "max_length=0 must be >= 1; set it in"),
        ({"discriminator_beta2": 1.0}, r"discriminator_beta2=1.0 must be in \[0, 1\)"),
        (
            {"estimator": "reinforce", "w_feat": 0.0, "w_cls": 0.05},
            "w_cls=0.05 must be 0 for estimator='reinforce', .* only rewards; set it to 0",
        ),
        ({"estimator": "reinforce", "w_feat": 0.1}, "w_feat=0.1 must be 0 for estimator='reinforce'"),
        ({"estimator": "reinforce", "w_feat": 0.0, "w_cls": 0.0, "w_div": 0.2}, "w_div=0.2 must be 0 for estimator"),
        ({"early_stopping_patience": 2}, "early_stopping_patience=2 must come with evaluations; set eval_strategy"),
    ],
)
def test_an_option_out_of_its_bounds_is_named_with_the_remedy(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **options)


def test_every_number_has_bounds():
    own = [field for options in (ObjectiveOptions, AdversaryOptions, WatchOptions) for field in fields(options)]
    numbers = [field for field in own if field.type in (int, float, int | None, float | None)]
    assert len(numbers) > 40
    assert not [field.name for field in numbers if field.metadata["bounds"] is None]


@pytest.mark.parametrize(
    ("options", "plays"),
    [
        ({}, True),
        ({"adversary_fraction": 0.0}, False),
        ({"task": "classification"}, False),
        ({"task": "masked_lm"}, False),
        ({"task": "generation"}, True),
        ({"w_adv": 0.0, "w_feat": 0.0, "w_cls": 0.0}, False),
        ({"w_adv": 0.0, "w_cls": 0.05}, True),
    ],
)
def test_there_is_a_game_where_rows_are_judged_and_some_term_wants_them(tmp_path, options, plays):
    assert arguments(tmp_path, **options).plays is plays


def test_one_process_needs_no_backend_so_that_a_recipe_for_several_runs_too(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert arguments(tmp_path, ddp_backend="gloo").ddp_backend is None


def test_what_trainer_would_break_is_set(tmp_path):
    made = arguments(tmp_path)
    assert made.remove_unused_columns is False
    assert made.ddp_find_unused_parameters is False
    assert made.use_cpu
