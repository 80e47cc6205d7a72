"""TRL's trainers, against losses written out here."""

import math

import pytest
import torch
from datasets import Dataset
from peers_fixtures import peer, trained_rows
from torch.nn import functional
from training_fixtures import adapted, byte_tokenizer, llama

from style_adapter import OFF, StyleAdapterConfig, StyleCollator, styled

trl = peer("trl")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning"),  # TRL's default
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
]

STYLES = ["loud", "calm"]
OPTIONS = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
OPTIONS |= {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.1, "remove_unused_columns": False}


def random_adapter() -> StyleAdapterConfig:
    return StyleAdapterConfig(
        styles=STYLES, r=4, target_modules="all-linear", init_weights=False, task_type="CAUSAL_LM"
    )


def sft_trainer(folder, styles=("loud", "calm", "calm", "loud"), **options):
    rows = {"prompt": ["ab", "c", "def", "g"], "completion": ["AB", "C!", "D", "GG"], "style": list(styles)}
    trainer = trl.SFTTrainer(
        model=llama(),
        args=trl.SFTConfig(str(folder), **OPTIONS | options),
        train_dataset=Dataset.from_dict(rows),
        processing_class=byte_tokenizer(),
        peft_config=random_adapter(),
    )
    trainer.data_collator = StyleCollator(trainer.data_collator)
    return trainer


def dpo_trainer(folder, model=None, **options):
    rows = {"prompt": ["ab", "c", "def", "g"], "chosen": ["AB", "C!", "D", "GG"], "rejected": ["x", "yy", "z", "zz"]}
    rows["style"] = ["loud", "calm", "calm", "loud"]
    trainer = trl.DPOTrainer(
        model=llama() if model is None else model,
        args=trl.DPOConfig(str(folder), **OPTIONS | options),
        train_dataset=Dataset.from_dict(rows),
        processing_class=byte_tokenizer(),
        peft_config=random_adapter() if model is None else None,
    )
    trainer.data_collator = StyleCollator(trainer.data_collator)
    return trainer


def first_batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


def token_scores(model, batch, styles, labels):
    """Log-probability of each label [rows, seq - 1] in `styles`, 0 where there is none; by the plain forward."""
    with styled(model, styles):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    return -functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")


def test_sft_loss_is_the_cross_entropy_in_each_rows_style(tmp_path):
    trainer = sft_trainer(tmp_path)
    batch = first_batch(trainer)
    assert sorted(batch["styles"]) == ["calm", "calm", "loud", "loud"]
    loss = trainer.compute_loss(trainer.model, dict(batch))
    count = (batch["labels"][:, 1:] != -100).sum()
    right = -token_scores(trainer.model, batch, batch["styles"], batch["labels"]).sum() / count
    wrong = -token_scores(trainer.model, batch, "loud", batch["labels"]).sum() / count
    torch.testing.assert_close(loss, right)
    assert abs(loss - wrong) > 1e-3


def test_sft_trains_the_styles_that_the_rows_name_and_no_other(tmp_path):
    one = sft_trainer(tmp_path, styles=["calm"] * 4)
    assert trained_rows(one.model, one.train) == {1}
    both = sft_trainer(tmp_path)
    assert trained_rows(both.model, both.train) == {0, 1}


@pytest.mark.parametrize("make", [sft_trainer, dpo_trainer])
def test_training_with_checkpointing_has_the_gradients_without_it(make, tmp_path):
    def gradients(checkpointing):
        trainer = make(tmp_path, gradient_checkpointing=checkpointing, max_steps=1, max_grad_norm=0.0)
        found = {}
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient, name=name: found.update({name: gradient.clone()}))
        trainer.train()
        return found

    without = gradients(False)
    assert max(gradient.abs().max() for gradient in without.values()) > 1e-3
    torch.testing.assert_close(gradients(True), without)


def test_a_dropped_column_is_refused_with_the_option_that_keeps_it(tmp_path):
    trainer = sft_trainer(tmp_path, remove_unused_columns=True)
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        trainer.train()


def test_one_style_for_a_whole_run_needs_no_column(tmp_path):
    trainer = sft_trainer(tmp_path, remove_unused_columns=True)
    trainer.data_collator = trainer.data_collator.collate

    def train():
        with styled(trainer.model, "calm"):
            trainer.train()

    assert trained_rows(trainer.model, train) == {1}


def test_dpo_loss_compares_each_rows_style_with_the_frozen_backbone(tmp_path):
    trainer = dpo_trainer(tmp_path, beta=0.3)
    batch = first_batch(trainer)
    assert batch["styles"] == batch["styles"][:4] * 2
    loss = trainer.compute_loss(trainer.model, dict(batch))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    scores = [token_scores(trainer.model, batch, s, labels).sum(dim=1) for s in (batch["styles"], OFF)]
    chosen, rejected = (scores[0] - scores[1]).chunk(2)
    torch.testing.assert_close(loss, -functional.logsigmoid(0.3 * (chosen - rejected)).mean())


def test_dpo_of_a_trained_adapter_starts_at_log_two_since_the_reference_has_the_same_styles(tmp_path):
    model = adapted(init_weights=False)
    trainer = dpo_trainer(tmp_path, model=model)
    batch = first_batch(trainer)
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    loud, calm = (token_scores(model, batch, style, labels) for style in STYLES)
    assert (loud - calm).abs().max() > 1e-2
    assert trainer.compute_loss(trainer.model, dict(batch)).item() == pytest.approx(math.log(2), abs=1e-6)


def test_dpo_trains_the_adapter_and_leaves_the_backbone(tmp_path):
    trainer = dpo_trainer(tmp_path)
    frozen = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    assert trained_rows(trainer.model, trainer.train) == {0, 1}
    now = dict(trainer.model.named_parameters())
    assert frozen
    assert all(torch.equal(now[name], weight) for name, weight in frozen.items())
