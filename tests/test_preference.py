"""Preferences: the loss against DPO's with a uniform reference, its gradient in training, and what it teaches."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from training_fixtures import adapted, byte_tokenizer, make_trainer, randomised, t5, toy_rows

from style_adapter import transfer
from style_adapter.inference import log_likelihoods
from style_adapter.losses import preference_loss


def worse(rows, text="..."):
    """`rows` with a worse target each."""
    return rows.add_column("rejected", [text] * len(rows))


def test_the_loss_is_that_of_dpo_with_a_uniform_reference():
    trl = pytest.importorskip("trl")
    assert trl
    chosen, rejected = torch.randn(5, dtype=torch.float64) - 9, torch.randn(5, dtype=torch.float64) - 9
    reference = torch.full_like(chosen, -7.0)  # the same for every text
    expected = -F.logsigmoid(0.3 * ((chosen - reference) - (rejected - reference)))
    torch.testing.assert_close(preference_loss(chosen, rejected, beta=0.3), expected)


def test_its_gradient_is_a_finite_difference():
    chosen = torch.tensor([-3.0, -1.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-2.0, -4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: preference_loss(a, b, beta=0.5), (chosen, rejected))


@pytest.mark.parametrize("backbone", [None, t5])
def test_the_term_of_a_step_is_the_loss_of_the_models_own_likelihoods(tmp_path, backbone):
    kind = {} if backbone is None else {"task_type": "SEQ_2_SEQ_LM"}
    model, tokenizer = randomised(adapted(backbone and backbone(), **kind)).eval(), byte_tokenizer()
    rows = worse(toy_rows(["ab", "cde", "fg"]))
    rejected = [*rows["rejected"]]
    rejected[1], rejected[2], rejected[3] = "", rows["target"][2], None
    rows = rows.remove_columns("rejected").add_column("rejected", rejected)
    trainer = make_trainer(tmp_path, model=model, rows=rows, w_pref=0.5, preference_beta=0.2, adversary_fraction=0.0)
    batch = trainer._prepare_inputs(trainer.data_collator([*trainer.train_dataset]))
    trainer.model.eval()
    found = trainer.model(play=False, **batch).rows["pref"]
    compared = [0, 4, 5]
    sums = []
    for column in ("target", "rejected"):
        texts = [rows[column][i] for i in compared]
        lengths = torch.tensor([len(tokenizer(text)["input_ids"]) + 1.0 for text in texts])
        sources, styles = [rows["source"][i] for i in compared], [rows["style"][i] for i in compared]
        sums.append(lengths * torch.tensor(log_likelihoods(model, tokenizer, sources, texts, styles)))
    torch.testing.assert_close(found.double(), preference_loss(*sums, beta=0.2).double(), rtol=1e-4, atol=1e-5)
    losses = trainer.compute_loss(trainer.model, batch, return_outputs=True)[1].rows
    whole = trainer.compute_loss(trainer.model, batch)
    tokens = batch["token_weights"].sum()
    torch.testing.assert_close(whole, losses["ce"].sum() / tokens + 0.5 * losses["pref"].mean())


def test_accumulated_batches_give_the_mean_over_all_compared_rows(tmp_path):
    rejected = ["x", "", "y", "z", None, "", "q", "r"]
    rows = toy_rows(["ab", "cd", "ef", "gh"]).add_column("rejected", rejected)
    logs = []
    for size, steps in ((8, 1), (2, 4)):
        trainer = make_trainer(
            tmp_path, model=randomised(adapted()), rows=rows, w_pref=1.0, per_device_train_batch_size=size,
            gradient_accumulation_steps=steps, max_steps=1,
        )  # fmt: skip
        trainer.train()
        logs.append(trainer.state.log_history[0])
    assert logs[0]["loss_pref"] == pytest.approx(logs[1]["loss_pref"], rel=1e-4)
    assert logs[0]["grad_norm"] == pytest.approx(logs[1]["grad_norm"], rel=1e-3)


def test_a_preference_makes_the_target_likelier_than_the_copy_that_was_learnt(tmp_path):
    sources = ["ab", "cd", "ef", "gh"]
    rows = toy_rows(sources).filter(lambda row: row["style"] == "loud")
    copies = rows.map(lambda row: {"target": row["source"], "rejected": ""})
    trainer = make_trainer(tmp_path, rows=copies, max_steps=60, per_device_train_batch_size=4, adversary_fraction=0.0)
    trainer.train()
    model, tokenizer = trainer.style_model, trainer.processing_class
    assert transfer(model, tokenizer, sources, "loud") == sources
    preferred = rows.map(lambda row: {"rejected": row["source"]})
    options = {"w_ce": 0.0, "w_pref": 1.0, "preference_beta": 1.0, "max_steps": 40, "adversary_fraction": 0.0}
    make_trainer(tmp_path, model=model, rows=preferred, per_device_train_batch_size=4, **options).train()
    better, worst = (log_likelihoods(model, tokenizer, sources, texts, "loud") for texts in (rows["target"], sources))
    assert (better > worst).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.remove_columns("rejected"), "w_pref=1 must be 0 where rows are not pairs with a column"),
        (lambda rows: rows.map(lambda row: {"rejected": row["target"]}), "where no row's 'rejected' is a text other"),
        (lambda rows: rows.map(lambda row: {"rejected": 3}), r"\[0\]\['rejected'\]=3 must be a text, or None"),
    ],
)
def test_a_preference_without_anything_to_compare_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, rows=change(worse(toy_rows())), w_pref=1.0)


def test_the_bound_of_beta_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"preference_beta=0\.0 must be > 0"):
        make_trainer(tmp_path, preference_beta=0.0)
