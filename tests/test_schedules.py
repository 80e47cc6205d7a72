"""A schedule for each side, and the optimizers that Trainer offers with one group a side."""

import pytest
import torch
from training_fixtures import adapted, adapter_weights, arguments, make_trainer
from transformers import get_scheduler

from style_adapter.trainer import discriminator_state

RATES = {"learning_rate": 4e-3, "discriminator_learning_rate": 1e-3, "gate_learning_rate": 2e-2}
STEPS = 6


def rates(trainer) -> dict[str, list[float]]:
    """Both rates as they were logged."""
    names = ("learning_rate", "d_learning_rate")
    return {name: [line[name] for line in trainer.state.log_history if name in line] for name in names}


def course(name: str, rate: float, **options) -> list[float]:
    """The rates of transformers' own schedule on an optimizer of its own, warmed up over one step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = get_scheduler(name, optimizer, 1, STEPS, options or None)
    found = []
    for _ in range(STEPS):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("own", ["constant", "cosine", "polynomial"])
def test_each_side_follows_a_schedule_of_its_own_as_transformers_has_it(tmp_path, own):
    options = RATES | {"max_steps": STEPS, "warmup_steps": 1.0}
    trainer = make_trainer(
        tmp_path,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 1e-3},
        discriminator_lr_scheduler_type=own,
        **options,
    )
    trainer.train()
    found = rates(trainer)
    assert found["learning_rate"] == pytest.approx(course("cosine_with_min_lr", 4e-3, min_lr=1e-3))
    assert found["d_learning_rate"] == pytest.approx(course(own, 1e-3))
    gates = [group["lr"] for group in trainer.optimizer.param_groups if group["initial_lr"] == 2e-2]
    assert gates == pytest.approx([5 * trainer.lr_scheduler.get_last_lr()[0]])  # they follow the adapter


def test_left_out_the_discriminator_follows_the_adapter(tmp_path):
    trainer = make_trainer(tmp_path, lr_scheduler_type="linear", max_steps=STEPS, **RATES)
    trainer.train()
    found = rates(trainer)
    assert found["d_learning_rate"] == pytest.approx([rate / 4 for rate in found["learning_rate"]])
    assert found["learning_rate"][0] > found["learning_rate"][-1]


def test_without_a_discriminator_there_is_nothing_to_schedule_apart(tmp_path):
    trainer = make_trainer(tmp_path, adversary_fraction=0.0, discriminator_lr_scheduler_type="linear", max_steps=2)
    trainer.train()
    assert rates(trainer) == {"learning_rate": [1e-2, 1e-2], "d_learning_rate": []}


@pytest.mark.parametrize("adapter", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_that_follows_a_metric_is_that_of_both_sides(tmp_path, adapter):
    with pytest.raises(ValueError, match=f"must be left out with lr_scheduler_type='{adapter}', which follows a met"):
        arguments(tmp_path, lr_scheduler_type=adapter, discriminator_lr_scheduler_type="linear")


def test_a_schedule_that_needs_options_of_its_own_is_not_one_of_the_discriminators(tmp_path):
    with pytest.raises(ValueError, match="discriminator_lr_scheduler_type='greedy' must be one of linear, cosine"):
        arguments(tmp_path, discriminator_lr_scheduler_type="greedy")


@pytest.mark.parametrize(
    "optim",
    ["adamw_torch", "sgd", "adafactor", *(pytest.param(o, marks=pytest.mark.slow) for o in ("rmsprop", "adagrad"))],
)
def test_each_optimizer_moves_both_sides_by_their_own_rates_and_is_taken_up_again(tmp_path, optim):
    options = {"optim": optim, "max_steps": 4, "save_strategy": "steps", "save_steps": 2.0}

    def moves(folder, *, checkpoint: str | None = None, **rates) -> dict[str, torch.Tensor]:
        trainer = make_trainer(tmp_path / folder, model=adapted(noise_dim=2), **options | rates)
        start = discriminator_state(trainer.model) | adapter_weights(trainer.style_model)
        start = {name: tensor.clone() for name, tensor in start.items()}
        trainer.train(resume_from_checkpoint=checkpoint)
        end = discriminator_state(trainer.model) | adapter_weights(trainer.style_model)
        trained = ("discriminator.", "base_model.")
        return {name: end[name] - start[name] for name in end if name.startswith(trained)}

    both, adapter = moves("both"), moves("adapter", discriminator_learning_rate=0.0)
    judge = {name for name in both if name.startswith("discriminator.")}
    assert all(move.isfinite().all() for move in both.values())
    assert all(adapter[name].abs().max() == 0 for name in judge)
    assert any(both[name].abs().max() > 0 for name in judge)
    assert any(adapter[name].abs().max() > 0 for name in adapter.keys() - judge)
    again = moves("again", checkpoint=str(tmp_path / "both" / "checkpoint-2"))
    assert all(torch.equal(again[name], both[name]) for name in both)
