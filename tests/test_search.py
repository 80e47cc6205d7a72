"""A hyperparameter search builds the whole game anew for each trial."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from matplotlib import pyplot
from peft import PeftModel
from search import plot
from training_fixtures import adapted, adapter_weights, arguments, byte_tokenizer, make_trainer, toy_rows
from transformers.trainer_utils import BestRun

from style_adapter.trainer import StyleTrainer

optuna.logging.set_verbosity(optuna.logging.WARNING)
OPTIONS: dict[str, Any] = {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 3.0, "eval_samples": 2, "seed": 7}
TRIALS: list[dict[str, Any]] = [
    {"learning_rate": 1e-2, "w_adv": 0.3, "noise_type": "gaussian"},
    {"learning_rate": 3e-2, "w_adv": 0.0, "noise_type": "uniform"},  # no game at all
]
ALONE = {"w_feat": 0.0, "w_cls": 0.0}


def fresh(trial: optuna.Trial | None = None) -> PeftModel:
    """The toy's adapter; a trial says with which noise."""
    noise = "gaussian" if trial is None else trial.suggest_categorical("noise_type", ["gaussian", "uniform"])
    return adapted(noise_dim=2, noise_type=noise, seed=7)


def space(trial: optuna.Trial) -> dict[str, Any]:
    return {name: trial.suggest_float(name, 0.0, 1.0) for name in ("learning_rate", "w_adv")}


def build(folder, model_init: Callable[..., PeftModel] = fresh, **options: Any) -> StyleTrainer:
    return StyleTrainer(
        model_init=model_init,
        args=arguments(folder, **OPTIONS | ALONE | options),
        train_dataset=toy_rows(),
        eval_dataset=toy_rows(["mn", "op"]),
        processing_class=byte_tokenizer(),
    )


def search(trainer: StyleTrainer, objective: Callable[[dict[str, float]], float]) -> tuple[BestRun, optuna.Study]:
    """The trials of the table, in their order."""
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="table")
    for trial in TRIALS:
        study.enqueue_trial(trial)
    options = {"storage": storage, "study_name": "table", "load_if_exists": True, "n_trials": len(TRIALS)}
    best = trainer.hyperparameter_search(space, objective, direction="minimize", backend="optuna", **options)
    return best, study


def test_a_trial_gets_what_a_run_of_its_own_would_have(tmp_path):
    trainer, seen = build(tmp_path, early_stopping_patience=1), []

    def objective(metrics: dict[str, float]) -> float:
        watchers = sorted(type(callback).__name__ for callback in trainer.callback_handler.callbacks)
        judge = trainer.model.discriminator is not None
        seen.append((judge, trainer.bank.noise_type, watchers, adapter_weights(trainer.style_model)))
        return metrics["eval_loss"]

    best, study = search(trainer, objective)
    assert [trial.params for trial in study.trials] == TRIALS
    assert [(judge, noise) for judge, noise, *_ in seen] == [(True, "gaussian"), (False, "uniform")]
    assert set(seen[0][2]) - {"_CommitMemory", "_RestAdapter"} == set(seen[1][2])  # which a game alone has
    assert all(len(set(watchers)) == len(watchers) for _, _, watchers, _ in seen)  # and nothing twice
    values = []
    for number, trial in enumerate(TRIALS):
        options = {name: value for name, value in trial.items() if name != "noise_type"} | OPTIONS | ALONE
        model = adapted(noise_dim=2, noise_type=trial["noise_type"], seed=7)
        rows = toy_rows(["mn", "op"])
        alone = make_trainer(tmp_path / str(number), model=model, eval_dataset=rows, **options)
        alone.train()
        values += [line["eval_loss"] for line in alone.state.log_history if "eval_loss" in line]
        assert all(torch.equal(seen[number][3][name], w) for name, w in adapter_weights(model).items())
    assert [trial.value for trial in study.trials] == values
    assert best.hyperparameters == TRIALS[values.index(min(values))]


def test_each_train_of_a_model_init_begins_anew(tmp_path):
    trainer = build(tmp_path, eval_strategy="no")
    found = []
    for _ in range(2):
        trainer.train()
        found.append(adapter_weights(trainer.style_model))
        assert trainer.style_model is trainer.model.model
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


def test_what_a_trial_must_not_change_is_refused(tmp_path):
    trainer = build(tmp_path)
    with pytest.raises(ValueError, match=r"w_adv=-1.0 must be >= 0; 0 turns the term off"):
        trainer.hyperparameter_search(lambda trial: {"w_adv": -1.0}, len, n_trials=1, backend="optuna")
    prompts = iter(["{source}\n", "Say: {source}\n"])
    trainer = build(tmp_path, lambda: adapted(prompt=next(prompts)))
    with pytest.raises(ValueError, match="model_init must give each adapter the same styles and prompt"):
        trainer.train()


def test_a_model_comes_from_one_source(tmp_path):
    rows: dict[str, Any] = {"train_dataset": toy_rows(), "processing_class": byte_tokenizer()}
    with pytest.raises(ValueError, match="of model and model_init exactly one must be given, not neither"):
        StyleTrainer(args=arguments(tmp_path), **rows)
    with pytest.raises(ValueError, match="of model and model_init exactly one must be given, not both"):
        StyleTrainer(adapted(), arguments(tmp_path), model_init=fresh, **rows)
    judge = make_trainer(tmp_path).model.discriminator
    with pytest.raises(ValueError, match="discriminator must be left out with model_init"):
        StyleTrainer(args=arguments(tmp_path), model_init=fresh, discriminator=judge, **rows)


def test_the_example_draws_every_trial_of_its_study(tmp_path, monkeypatch):
    study = optuna.create_study(direction="maximize")
    for value in (0.2, 0.5, 0.3):
        study.add_trial(
            optuna.create_trial(
                value=value,
                params={"w_adv": value / 2},
                distributions={"w_adv": optuna.distributions.FloatDistribution(0.0, 1.0)},
            )
        )
    figures = []
    monkeypatch.setattr(pyplot, "close", lambda: figures.append(pyplot.gcf()))
    assert [path.name for path in plot(study, tmp_path) if path.stat().st_size] == ["history.png", "options.png"]
    shown = [axes.collections[0].get_offsets().tolist() for axes in (figures[0].axes[0], figures[1].axes[0])]
    assert shown == [[[0, 0.2], [1, 0.5], [2, 0.3]], [[0.1, 0.2], [0.25, 0.5], [0.15, 0.3]]]
    monkeypatch.undo()
    pyplot.close("all")
