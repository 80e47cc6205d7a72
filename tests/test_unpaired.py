"""Training on texts without counterparts: each term against the model's own loss, and what each row may depend on."""

import copy

import datasets
import pytest
import torch
from training_fixtures import (
    END,
    PROMPT,
    adapted,
    adapter_weights,
    byte_tokenizer,
    make_trainer,
    randomised,
    t5,
    toy_rows,
)

from style_adapter.data import kind_of_rows
from style_adapter.functional import IGNORED
from style_adapter.game import DISCRIMINATOR_TERMS, Lesson
from style_adapter.game.order import Order
from style_adapter.inference import transfer
from style_adapter.metrics import bleu
from style_adapter.trainer import discriminator_state

WORDS = ["ab cd ef", "gh ij", "kl mn op", "qr st", "uv wx yz", "ba dc", "fe hg ji", "lk nm"]
ROWS = datasets.Dataset.from_list(
    [row for w in WORDS for row in ({"text": w.upper() + "!", "style": "loud"}, {"text": w + ".", "style": "calm"})]
)
SGD = {"optim": "sgd", "max_steps": 1, "learning_rate": 0.1, "discriminator_learning_rate": 0.1, "max_grad_norm": 0.0}

REWARDED = {"estimator": "reinforce", "w_feat": 0.0, "w_cls": 0.0}  # no gradient goes through the text


def trainer_of(folder, *, model=None, rows=ROWS, **options):
    """A trainer of the unpaired toy on a random adapter, short samples."""
    model = randomised(adapted()) if model is None else model
    return make_trainer(folder, model=model, rows=rows, **{"sampling_length": 6} | options)


def batch_of(trainer, rows=range(6)):
    return trainer.data_collator([trainer.train_dataset[row] for row in rows])


def own_loss(model, prompt: list[int], target: list[int], style: str) -> torch.Tensor:
    """The model's own summed loss of one text after one prompt."""
    if model.config.is_encoder_decoder:
        loss = model(input_ids=torch.tensor([prompt]), labels=torch.tensor([target]), styles=style).loss
    else:
        labels = torch.tensor([[IGNORED] * len(prompt) + target])
        loss = model(input_ids=torch.tensor([prompt + target]), labels=labels, styles=style).loss
    return loss * len(target)


def written(trainer, batch) -> list[list[int]]:
    """What the generator writes in a step on `batch`, by its writer alone."""
    generator = trainer.model.generator
    order = Order.of(batch, generator.code(batch, "wanted"), decoder_only=generator.decoder_only)
    return generator.writer(trainer.style_model, order.prompts, order.code, order.draws("write"))


def other(style: str) -> str:
    return "calm" if style == "loud" else "loud"


def test_rows_of_text_and_style_are_unpaired(tmp_path):
    assert kind_of_rows(ROWS, "transfer") == "unpaired"
    assert trainer_of(tmp_path).model.rules.fakes == "sampled"


# What a row is given


def test_each_row_is_asked_for_another_style_and_gets_a_real_text_of_it(tmp_path):
    trainer = trainer_of(tmp_path)
    batch = batch_of(trainer, range(16))
    assert torch.equal(batch["wanted_ids"][:, 0], 1 - batch["style_ids"][:, 0])
    for row, real in enumerate(batch["real_ids"].tolist()):
        assert ROWS[real]["style"] == other(ROWS[row]["style"])
        tokens = batch["real_labels"][row][batch["real_labels"][row] != IGNORED].tolist()
        assert tokens == [*byte_tokenizer()(ROWS[real]["text"])["input_ids"], END]


def test_what_a_row_is_given_depends_on_seed_epoch_and_row_alone(tmp_path):
    trainer = trainer_of(tmp_path, drop_words=0.3)

    def given(rows) -> list[tuple[list[int], int]]:
        batch = batch_of(trainer, rows)
        prompts = Lesson.of(batch, trainer.model.generator.code(batch, "style")).prompts(decoder_only=True)
        return [*zip(prompts, batch["real_ids"].tolist(), strict=True)]

    first = given(range(16))
    assert given([3, 9]) == [first[3], first[9]]
    trainer.setting.draws.clock.epoch = 1
    later = given(range(16))
    assert sum(a[0] != b[0] for a, b in zip(later, first, strict=True)) > 4
    assert sum(a[1] != b[1] for a, b in zip(later, first, strict=True)) > 4


def test_markers_of_the_style_are_taken_out_of_what_a_text_is_rebuilt_from(tmp_path):
    trainer = trainer_of(tmp_path, marker_threshold=4.0, drop_words=0.0, shuffle_reach=0)
    batch = batch_of(trainer)
    width = batch["input_ids"].shape[1] - batch["labels"].shape[1]
    prompts = byte_tokenizer().batch_decode(batch["input_ids"][:, :width], skip_special_tokens=True)
    assert prompts[0] == "AB CD EF\n"  # "!" tells the style
    assert prompts[1] == "ab cd ef\n"


def test_pairs_to_train_on_may_be_evaluated_on_texts_without_counterparts(tmp_path):
    options = {"eval_samples": 6, "per_device_eval_batch_size": 16, "marker_threshold": 9.0}
    trainer = trainer_of(tmp_path, rows=toy_rows(), eval_dataset=ROWS, **options)
    metrics = trainer.evaluate()
    outputs = transfer(trainer.style_model, trainer.processing_class, ROWS["text"][:6], ["calm", "loud"] * 3)
    assert metrics["eval_calm_self_bleu"] == bleu(outputs[::2], ROWS["text"][:6:2])
    batch = trainer.data_collator([*trainer.eval_dataset])
    with torch.no_grad():
        rows = trainer.model.eval()(play=False, **batch).rows["rec"]
    assert metrics["eval_loss"] == pytest.approx(float(rows.sum() / batch["token_weights"].sum()), rel=1e-5)
    trainer.train()
    assert "loss_ce" in trainer.state.log_history[0]


# The terms


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_each_likelihood_equals_the_models_own_loss(tmp_path, kind):
    model = randomised(adapted()) if kind == "llama" else randomised(adapted(t5(), task_type="SEQ_2_SEQ_LM"))
    trainer = trainer_of(tmp_path, model=model)
    game, batch, tokenizer = trainer.model.eval(), batch_of(trainer), byte_tokenizer()
    with torch.no_grad():
        rows = game(**batch).rows
    texts = written(trainer, batch)
    for row in range(6):
        style = ROWS[row]["style"]
        target = [*tokenizer(ROWS[row]["text"])["input_ids"], END]
        source = batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()
        corrupt = source if kind == "t5" else source[: -len(target)]
        torch.testing.assert_close(rows["rec"][row], own_loss(model, corrupt, target, style))
        back = tokenizer(PROMPT.replace("{source}", tokenizer.decode(texts[row], skip_special_tokens=True).strip()))
        torch.testing.assert_close(rows["bt"][row], own_loss(model, back["input_ids"], target, style))


def test_divergence_is_zero_for_a_fresh_adapter_and_that_of_the_distributions_for_another(tmp_path):
    fresh = trainer_of(tmp_path, model=adapted(), w_kl=0.1)
    assert fresh.model(**batch_of(fresh)).rows["kl"].abs().max() < 1e-5
    trainer = trainer_of(tmp_path, w_kl=0.1)
    game, batch = trainer.model.eval(), batch_of(trainer, [0])
    found = game(**batch).rows["kl"]
    prompt, (text,) = batch["source_ids"][0].tolist(), written(trainer, batch)
    ids = torch.tensor([prompt + text])
    with torch.no_grad():
        adapted_log, frozen_log = (
            game.model(ids, styles=style).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            for style in ("calm", 0 * game.model.styles["calm"])
        )
    expected = (adapted_log.exp() * (adapted_log - frozen_log)).sum(-1).mean()
    torch.testing.assert_close(found[0], expected)
    assert expected > 0.01


def test_diversity_wants_noise(tmp_path):
    trainer = trainer_of(tmp_path, model=randomised(adapted(noise_dim=2)), w_div=0.1)
    rows = trainer.model(**batch_of(trainer)).rows
    assert rows["div"].shape == (6,)
    gradients = torch.autograd.grad(rows["div"].sum(), [p for n, p in trainer.model.named_parameters() if "noise" in n])
    assert all(g.abs().max() > 0 for g in gradients)
    with pytest.raises(ValueError, match=r"w_div=0.1 must be 0 for an adapter without noise; set noise_dim"):
        trainer_of(tmp_path, w_div=0.1)


@pytest.mark.parametrize("estimator", ["sampled", "soft", "reinforce"])
def test_each_estimator_moves_the_adapter_and_not_the_judge(tmp_path, estimator):
    trainer = trainer_of(tmp_path, **REWARDED if estimator == "reinforce" else {"estimator": estimator})
    game, batch = trainer.model, batch_of(trainer)
    game(**batch)
    game.memory.commit()
    rows = game(**batch).rows
    assert ("feat" in rows) == (estimator != "reinforce")
    adapter = [p for n, p in game.named_parameters() if "style_adapter_" in n]
    moved = torch.autograd.grad(rows["adv"].sum(), adapter, allow_unused=True, retain_graph=True)
    assert any(g is not None and g.abs().max() > 0 for g in moved)
    judge = [*game.discriminator.parameters()]
    still = torch.autograd.grad(rows["adv"].sum(), judge, allow_unused=True, retain_graph=True)
    assert all(g is None for g in still)


@pytest.mark.parametrize(
    "options", [{}, {"discriminator_kind": "two_way"}, {"discriminator_kind": "fake_class"}, {"w_r2": 0.1}]
)
def test_the_judges_terms_move_it_alone(tmp_path, options):
    trainer = trainer_of(tmp_path, **options)
    game, batch = trainer.model, batch_of(trainer)
    rows = game(**batch).rows
    assert ("d_r2" in rows) == ("w_r2" in options)
    assert ("d_cls" in rows) == (options.get("discriminator_kind") != "fake_class")
    loss = sum(rows[name].sum() for name in DISCRIMINATOR_TERMS if name in rows)
    adapter = [p for n, p in game.named_parameters() if "style_adapter_" in n]
    assert all(g is None for g in torch.autograd.grad(loss, adapter, allow_unused=True, retain_graph=True))
    for parameter in torch.autograd.grad(loss, [*game.discriminator.parameters()]):
        assert parameter is not None


# Runs


def moved_by(trainer) -> dict[str, torch.Tensor]:
    trainer.train()
    return {**adapter_weights(trainer.style_model), **discriminator_state(trainer.model)}


@pytest.mark.parametrize("options", [{}, REWARDED, {"replay_size": 8, "w_kl": 0.1, "feature_matching": "mean"}])
def test_accumulating_4_x_2_rows_is_a_batch_of_8(tmp_path, options):
    options = SGD | {"adversary_fraction": 0.7} | options
    whole = moved_by(trainer_of(tmp_path, per_device_train_batch_size=8, **options))
    parts = moved_by(trainer_of(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, **options))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_what_is_written_is_drawn_as_the_options_of_sampling_say(tmp_path):
    drawn = trainer_of(tmp_path)
    batch = batch_of(drawn)
    greedy = written(trainer_of(tmp_path, sampling_temperature=0.0), batch)
    assert written(drawn, batch) != greedy
    # Caution to the end: one token left to draw, by its rank, by its probability, by a temperature near 0.
    for options in ({"sampling_top_k": 1}, {"sampling_top_p": 1e-6}, {"sampling_temperature": 1e-4}):
        assert written(trainer_of(tmp_path, **options), batch) == greedy


def test_steps_of_the_judge_alone_leave_the_adapter_bitwise(tmp_path):
    trainer = trainer_of(tmp_path, discriminator_steps=3, max_steps=2, per_device_train_batch_size=4)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("discriminator.") for name in moved)
    assert {name for name in trainer.state.log_history[0] if name.startswith("loss_")} == {"loss_d_adv", "loss_d_cls"}
    longer = trainer_of(tmp_path, discriminator_steps=3, max_steps=3, per_device_train_batch_size=4)
    longer.train()
    assert any(not torch.equal(t, before[n]) for n, t in longer.model.state_dict().items() if "style_adapter_A" in n)


def test_old_fakes_fill_the_buffer_and_change_the_judges_side_alone(tmp_path):
    trainer = trainer_of(tmp_path, replay_size=4, replay_fraction=1.0)
    game, batch = trainer.model, batch_of(trainer)
    first = game(**batch).rows
    game.memory.commit()
    assert len(game.memory.replay) == 4
    later = {**batch, "seeds": batch["seeds"] + 1}  # other draws: what is old differs from what is new
    with_old, fresh = game(**later).rows, copy.deepcopy(game)
    fresh.memory.replay = None
    fresh.reader = type(game.reader)(fresh.features, fresh.rules, fresh.memory, None)
    without = fresh(**later).rows
    torch.testing.assert_close(with_old["adv"], without["adv"])
    assert not torch.allclose(with_old["d_adv"], without["d_adv"])
    assert first["d_adv"].shape == with_old["d_adv"].shape


def test_an_unpaired_run_trains_evaluates_and_rebuilds_better(tmp_path):
    options = {"max_steps": 30, "eval_strategy": "steps", "eval_steps": 30.0, "w_r1": 0.1, "instance_noise": 0.1}
    trainer = trainer_of(tmp_path, model=adapted(), eval_dataset=ROWS, gate_learning_rate=1e-2, **options)
    trainer.train()
    history = trainer.state.log_history
    losses = [line["loss_rec"] for line in history if "loss_rec" in line]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert {"loss_bt", "loss_adv", "loss_feat", "loss_cls", "loss_d_adv", "loss_d_r1"} <= set(history[0])
    scores = next(line for line in history if "eval_style_score" in line)
    assert 0 <= scores["eval_loud_style_accuracy"] <= 1


def test_paired_rows_can_judge_an_unpaired_run(tmp_path):
    pairs = datasets.Dataset.from_list(
        [{"source": "ab.", "target": "AB!", "style": "loud"}, {"source": "CD!", "target": "cd.", "style": "calm"}]
    )
    trainer = trainer_of(tmp_path, eval_dataset=pairs)
    assert {"eval_loss", "eval_loud_bleu", "eval_style_score"} <= set(trainer.evaluate())


def test_texts_of_one_style_cannot_be_rewritten(tmp_path):
    with pytest.raises(ValueError, match=r"texts of \['loud'\] and must have at least 2 styles .* task='generation'"):
        trainer_of(tmp_path, rows=ROWS.filter(lambda row: row["style"] == "loud"))


def test_the_judge_says_of_texts_what_it_says_of_them_in_a_step(tmp_path):
    trainer = trainer_of(tmp_path)
    game, batch = trainer.model.eval(), batch_of(trainer)
    said = game(**batch).scores["real"]
    texts = [labels[labels != IGNORED].tolist() for labels in batch["real_labels"]]
    torch.testing.assert_close(game.judge(texts, torch.eye(2)[batch["wanted_ids"][:, 0]]).realness, said)
    alone = trainer_of(tmp_path, adversary_fraction=0.0)
    with pytest.raises(ValueError, match="discriminator=None must be a StyleDiscriminator"):
        alone.model.judge(texts, torch.eye(2)[[0] * 6])
