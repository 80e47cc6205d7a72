"""Gradient norms by term: those of a backward of the term alone, taken without a trace in the step's own gradients."""

import datasets
import pytest
import torch
from training_fixtures import adapted, make_trainer, randomised
from transformers import TrainerCallback

from style_adapter import StyleTrainer


def norms_of(trainer: StyleTrainer, term: str = "ce") -> dict[str, float]:
    """The gradient norms by term of the last step that has that of `term`."""
    line = [line for line in trainer.state.log_history if f"grad_norm_{term}" in line][-1]
    return {name.removeprefix("grad_norm_"): v for name, v in line.items() if name.startswith("grad_norm_")}


def assert_equal(one: dict, other: dict) -> None:
    """Bitwise."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture
def measured(tmp_path):
    """One step of a random adapter, its gradients measured by term."""
    options = {"w_r1": 0.5, "adversary_fraction": 0.6, "term_gradient_steps": 1, "max_steps": 1, "max_grad_norm": 0.0}
    return lambda **more: make_trainer(tmp_path, model=randomised(adapted()), **options | more)


def test_a_terms_norm_is_that_of_a_backward_of_the_term_alone(measured):
    trainer = measured()
    batches = []
    plain = trainer.compute_loss
    trainer.compute_loss = lambda model, inputs, **kwargs: (batches.append(inputs), plain(model, inputs, **kwargs))[1]
    trainer.train()
    twin = measured()
    norms = norms_of(trainer)
    assert norms.keys() == {"ce", "adv", "feat", "cls", "d_adv", "d_cls", "d_r1"}
    for term, norm in norms.items():
        losses = twin.model.train()(**batches[0]).rows
        count = batches[0]["token_weights"].sum() if term == "ce" else batches[0]["judged"].sum()
        twin.model.zero_grad()
        (twin._weight(term) * losses[term].sum() / count).backward()
        side = twin.model.discriminator if term.startswith("d_") else twin.model.model
        grads = [p.grad.flatten() for p in side.parameters() if p.grad is not None]
        expected = float(torch.cat(grads).norm())
        if term == "feat":  # the twin's prototypes know texts from its second forward on
            assert norm == 0.0
        else:
            assert norm == pytest.approx(expected, rel=1e-4), term


def test_the_steps_own_gradients_are_bitwise_what_they_are_without(measured):
    def gradients(**options) -> dict[str, torch.Tensor]:
        kept = {}

        class Keep(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
                kept.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

        measured(callbacks=[Keep()], **options).train()
        return kept

    for options in ({}, {"activation_checkpointing": True, "gradient_accumulation_steps": 2}):
        assert_equal(gradients(**options), gradients(term_gradient_steps=0, **options))


def test_norms_of_an_accumulated_batch_are_those_of_the_whole(measured):
    whole, parts = (
        measured(per_device_train_batch_size=8),
        measured(per_device_train_batch_size=2, gradient_accumulation_steps=4),
    )
    for trainer in (whole, parts):
        trainer.train()
    assert norms_of(parts) == pytest.approx(norms_of(whole), rel=1e-3)


def test_norms_are_logged_at_their_steps_alone(measured):
    trainer = measured(max_steps=5, term_gradient_steps=2)
    trainer.train()
    assert [line["step"] for line in trainer.state.log_history if "grad_norm_ce" in line] == [2, 4]


def test_norms_that_cannot_be_taken_are_refused(measured, monkeypatch):
    with pytest.raises(ValueError, match="term_gradient_steps=1 must be 0 under FSDP, DeepSpeed and reentrant"):
        measured(activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": True})
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(ValueError, match="term_gradient_steps=1 must be 0 under FSDP"):
        measured()


def test_terms_of_unpaired_training_are_measured_too(measured):
    rows = datasets.Dataset.from_dict({"text": ["ab!", "cd!", "ef.", "gh."], "style": ["loud"] * 2 + ["calm"] * 2})
    trainer = measured(rows=rows, w_kl=0.1, adversary_fraction=1.0)
    trainer.train()
    norms = norms_of(trainer, "rec")
    assert norms.keys() == {"rec", "bt", "kl", "adv", "feat", "cls", "d_adv", "d_cls", "d_r1"}
    assert all(norm > 0 for term, norm in norms.items() if term != "feat")  # no prototype yet
