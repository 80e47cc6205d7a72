"""The game under Accelerate: equal runs, equal gradients however a batch is cut, both sides saved and restored."""

from pathlib import Path

import datasets
import pytest
import torch
from peft import PeftModel, get_peft_model
from training_fixtures import (
    SOURCES,
    STYLES,
    adapted,
    adapter_weights,
    arguments,
    llama,
    make_trainer,
    randomised,
    t5,
    toy_rows,
    trained_toy,
)
from transformers import TrainerCallback

from style_adapter import StyleAdapterConfig
from style_adapter.inference import transfer
from style_adapter.metrics import StyleJudge, bleu, sentence_chrf
from style_adapter.trainer import StyleTrainer, discriminator_state, parameter_groups


@pytest.fixture
def trained(tmp_path_factory) -> StyleTrainer:
    """A trainer that has learnt the toy."""
    return trained_toy(tmp_path_factory.mktemp("trained"))


def sides(trainer: StyleTrainer) -> dict[str, torch.Tensor]:
    """A copy of everything that training moves: the adapter, the discriminator, the prototypes."""
    judge = {} if trainer.model.discriminator is None else discriminator_state(trainer.model)
    return {**adapter_weights(trainer.style_model), **{name: t.clone() for name, t in judge.items()}}


def assert_equal(one: dict, other: dict) -> None:
    """Bitwise."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def logged(trainer: StyleTrainer, name: str) -> list[float]:
    """The values of one number in the order they were logged."""
    return [line[name] for line in trainer.state.log_history if name in line]


# Seeds


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(tmp_path):
    options = {"max_steps": 4, "per_device_train_batch_size": 4}

    def run(seed: int) -> StyleTrainer:
        trainer = make_trainer(tmp_path, model=adapted(seed=seed, dropout=0.1), seed=seed, **options)
        trainer.train()
        return trainer

    first, again, other = run(1), run(1), run(2)
    assert_equal(sides(first), sides(again))
    for name in ("loss", "loss_adv", "loss_d_adv"):
        assert logged(first, name) == logged(again, name) != logged(other, name)
    changed = [name for name, tensor in sides(first).items() if not torch.equal(tensor, sides(other)[name])]
    assert len(changed) > 0.9 * len(sides(first))


# One batch, however it is cut

SGD = {"optim": "sgd", "max_steps": 1, "learning_rate": 0.1, "discriminator_learning_rate": 0.1, "max_grad_norm": 0.0}


def after_one_step(folder: Path, **options) -> tuple[StyleTrainer, dict[str, torch.Tensor]]:
    """Everything that training moves, after one step from a random adapter."""
    trainer = make_trainer(folder, model=randomised(adapted()), **SGD | {"adversary_fraction": 0.6} | options)
    torch.manual_seed(3)
    trainer.train()
    return trainer, sides(trainer)


def test_accumulating_2_x_4_and_8_x_1_rows_is_a_batch_of_8(tmp_path):
    whole, expected = after_one_step(tmp_path, per_device_train_batch_size=8, novel_token_weight=3.0)
    start = sides(make_trainer(tmp_path, model=randomised(adapted())))
    for size in (4, 1):
        parts, found = after_one_step(
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            novel_token_weight=3.0,
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        for name in ("loss", "loss_ce", "loss_adv", "loss_cls", "loss_d_adv", "loss_d_cls", "d_accuracy_real"):
            assert logged(parts, name) == pytest.approx(logged(whole, name), rel=1e-4), name
    moved = [name for name in expected if not torch.allclose(expected[name], start[name], atol=1e-5)]
    assert any(name.startswith("discriminator.") for name in moved)
    assert any("style_adapter_gate" in name for name in moved)


def test_each_term_is_the_mean_over_its_own_items(tmp_path):
    trainer = make_trainer(tmp_path, model=randomised(adapted()), adversary_fraction=0.6)
    batch = next(iter(trainer.get_train_dataloader()))
    losses = trainer.model(**batch).rows
    expected = losses["ce"].sum() / (batch["labels"] != -100).sum() + 1.0 * losses["d_adv"].mean()
    expected = expected + 0.05 * losses["adv"].mean() + 0.05 * losses["cls"].mean() + 1.0 * losses["d_cls"].mean()
    assert losses["d_adv"].shape[0] < len(batch["judged"])
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), expected)  # no prototype yet: feat is 0


def test_divergence_alone_with_pairs_is_that_of_the_distributions_at_the_target(tmp_path):
    alone = {"w_adv": 0.0, "w_feat": 0.0, "w_cls": 0.0, "w_kl": 0.5, "max_steps": 1}
    trainer = make_trainer(tmp_path, model=randomised(adapted()), **alone)
    game, row = trainer.model.eval(), trainer.train_dataset[0]
    found = game(**trainer.data_collator([row])).rows["kl"]
    prompt, styles = row["prompt_ids"], (row["style"], 0 * game.model.styles[row["style"]])
    ids = torch.tensor([[*prompt, *row["target_ids"]]])
    with torch.no_grad():
        own, frozen = (
            game.model(ids, styles=style).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for style in styles
        )
    expected = (own.exp() * (own - frozen)).sum(-1).mean()
    torch.testing.assert_close(found[0], expected)
    assert expected > 0.01
    trainer.train()
    assert trainer.model.discriminator is None
    assert {name for name in trainer.state.log_history[0] if name.startswith("loss_")} == {"loss_ce", "loss_kl"}


# The optimizer


def test_each_side_is_clipped_alone(tmp_path):
    trainer = make_trainer(tmp_path, model=randomised(adapted()), max_grad_norm=0.5)
    trainer.create_optimizer()
    adapter = [p for n, p in trainer.model.named_parameters() if "style_adapter_" in n]
    judge = list(trainer.model.discriminator.parameters())

    def clipped(huge: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for parameter in (*adapter, *judge):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for parameter in judge:
            parameter.grad *= huge
        trainer._clip_grad_norm(trainer.model)
        return [p.grad.clone() for p in adapter], [p.grad.clone() for p in judge]

    calm, stormy = clipped(1.0), clipped(1e6)
    assert all(torch.equal(a, b) for a, b in zip(calm[0], stormy[0], strict=True))
    for side in (*calm, *stormy):
        assert torch.cat([grad.flatten() for grad in side]).norm() == pytest.approx(0.5, rel=1e-3)


def test_groups_hold_each_trainable_tensor_once_with_its_own_rate_and_decay(tmp_path):
    model = adapted(llama(tie_word_embeddings=False), noise_dim=2, modules_to_save=["lm_head"])
    trainer = make_trainer(
        tmp_path, model=model, learning_rate=1e-3, weight_decay=0.1, discriminator_learning_rate=7e-4, adam_beta1=0.8
    )
    groups = trainer.create_optimizer().param_groups
    names = {id(p): n for n, p in trainer.model.named_parameters()}
    held = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(held) == sorted(n for n, p in trainer.model.named_parameters() if p.requires_grad)
    of = {name: group for group in groups for name in (names[id(p)] for p in group["params"])}
    kinds = {
        "style_adapter_A": (1e-3, 0.1, 0.8),
        "style_adapter_gate": (1e-2, 0.0, 0.8),
        "style_adapter_noise": (1e-2, 0.0, 0.8),
        "modules_to_save": (1e-3, 0.1, 0.8),
        "discriminator.": (7e-4, 0.0, 0.5),
    }
    for kind, (rate, decay, beta) in kinds.items():
        found = [group for name, group in of.items() if kind in name]
        assert found, kind
        for group in found:
            assert (group["lr"], group["weight_decay"], group["betas"][0]) == (rate, decay, beta), kind
    betas = {"betas": (0.8, 0.95)}
    for second, expected in ((None, (0.5, 0.95)), (0.9, (0.5, 0.9))):
        own = parameter_groups(trainer.model, arguments(tmp_path, discriminator_beta2=second), betas)
        assert own[-1]["betas"] == expected
    own = parameter_groups(trainer.model, arguments(tmp_path, gate_learning_rate=3e-3), {})
    assert next(group for group in own if group.get("lr") == 3e-3)["weight_decay"] == 0.0


def test_gates_do_not_decay_and_factors_do(tmp_path):
    still = {"w_ce": 0.0, "w_adv": 0.0, "w_feat": 0.0, "w_cls": 0.0, "weight_decay": 0.5, "max_steps": 2}
    trainer = make_trainer(tmp_path, model=randomised(adapted()), **still)
    before = adapter_weights(trainer.style_model)
    trainer.train()
    after = adapter_weights(trainer.style_model)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor) == ("style_adapter_gate" in name), name


# The course of a run


def test_the_adversary_starts_at_adversary_start_and_every_number_is_logged(tmp_path):
    trainer = make_trainer(
        tmp_path, max_steps=4, adversary_start=2, learning_rate=1e-3, lr_scheduler_type="linear", w_r1=0.1
    )
    start = {n: t.clone() for n, t in trainer.model.discriminator.state_dict().items()}
    kept = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            kept[state.global_step] = {n: t.clone() for n, t in trainer.model.discriminator.state_dict().items()}

    trainer.add_callback(Keep())
    trainer.train()
    assert_equal(kept[2], start)
    assert any(not torch.equal(kept[3][name], tensor) for name, tensor in start.items())
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 4
    game = {f"loss_{term}" for term in ("adv", "feat", "cls", "d_adv", "d_cls", "d_r1")}
    game |= {"d_accuracy_real", "d_accuracy_fake"}
    for step, line in enumerate(lines, start=1):
        assert {"loss", "loss_ce", "grad_norm", "d_grad_norm", "learning_rate", "d_learning_rate"} <= line.keys()
        assert game & line.keys() == (game if step > 2 else set())
        assert line["learning_rate"] == pytest.approx(1e-3 * (5 - step) / 4)
        assert line["d_learning_rate"] == pytest.approx(5e-4 * (5 - step) / 4)
    assert lines[0]["d_grad_norm"] == 0
    assert lines[3]["d_grad_norm"] > 0


def test_terms_are_logged_as_means_over_the_steps_since_the_last_line(tmp_path):
    each = make_trainer(tmp_path, max_steps=4, logging_steps=1.0)
    each.train()
    rare = make_trainer(tmp_path, max_steps=4, logging_steps=2.0)
    rare.train()
    for name in ("loss", "loss_ce", "loss_d_adv", "loss_adv"):
        one, two, three, four = logged(each, name)
        assert logged(rare, name) == pytest.approx([(one + two) / 2, (three + four) / 2], rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"adversary_fraction": 0.0}, {"w_adv": 0.0, "w_feat": 0.0, "w_cls": 0.0}], ids=["no rows", "no weight"]
)
def test_without_a_game_there_is_no_discriminator(tmp_path, options):
    trainer = make_trainer(tmp_path, max_steps=1, **options)
    trainer.train()
    assert trainer.model.discriminator is None
    assert "d_learning_rate" not in trainer.state.log_history[0]


def test_the_discriminator_learns_to_tell_fakes_from_texts(tmp_path):
    trainer = make_trainer(
        tmp_path,
        model=randomised(adapted()),
        max_steps=60,
        w_ce=0.0,
        w_adv=1e-9,
        learning_rate=0.0,
        discriminator_learning_rate=5e-3,
        per_device_train_batch_size=16,
    )
    trainer.train()
    for name in ("d_accuracy_real", "d_accuracy_fake"):
        values = logged(trainer, name)
        assert sum(values[-5:]) / 5 > 0.9, name
    assert logged(trainer, "loss_d_adv")[-1] < 0.7 * logged(trainer, "loss_d_adv")[0]


def test_noise_of_a_row_depends_on_seed_epoch_and_row_alone(tmp_path):
    def noise(trainer: StyleTrainer, rows: list[int]) -> torch.Tensor | None:
        return trainer.model.generator.noise(trainer.data_collator([trainer.train_dataset[row] for row in rows]))

    trainer = make_trainer(tmp_path, model=adapted(noise_dim=3))
    first = noise(trainer, [3, 5, 7])
    torch.manual_seed(99)
    assert torch.equal(noise(trainer, [7, 3]), first[[2, 0]])
    trainer.setting.draws.clock.epoch = 1
    assert not torch.isclose(noise(trainer, [3, 5, 7]), first).any()
    other = make_trainer(tmp_path, model=adapted(noise_dim=3), seed=7)
    assert not torch.isclose(noise(other, [3, 5, 7]), first).any()
    assert noise(make_trainer(tmp_path), [3, 5, 7]) is None


def test_noise_is_trained(tmp_path):
    trainer = make_trainer(tmp_path, model=adapted(noise_dim=3))
    trainer.train()
    tables = {n: t for n, t in adapter_weights(trainer.style_model).items() if "style_adapter_noise" in n}
    assert tables
    assert all(table.abs().max() > 0 for table in tables.values())


def test_training_under_checkpointing_equals_training_without(tmp_path):
    options = {**SGD, "max_steps": 2}
    plain = make_trainer(tmp_path, model=randomised(adapted()), **options)
    saving = make_trainer(tmp_path, model=randomised(adapted()), activation_checkpointing=True, **options)
    plain.train()
    saving.train()
    torch.testing.assert_close(sides(saving), sides(plain))
    assert any(getattr(module, "gradient_checkpointing", False) for module in saving.model.modules())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in plain.model.modules())


# Evaluation, early stopping, the best checkpoint


def scripted(folder: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float], **options) -> StyleTrainer:
    """A trainer that evaluates and saves at each of five steps, its style score scripted."""
    script = iter(scores)
    monkeypatch.setattr(StyleTrainer, "style_metrics", lambda self: {"style_score": next(script)})
    every = {"eval_strategy": "steps", "eval_steps": 1.0, "save_strategy": "steps", "save_steps": 1.0}
    return make_trainer(
        folder, eval_dataset=toy_rows(["ab"]), max_steps=5, load_best_model_at_end=True, **every | options
    )


def test_early_stopping_stops_and_the_best_checkpoint_of_both_sides_is_restored(tmp_path, monkeypatch):
    kept, scores = {}, [0.2, 0.9, 0.5, 0.6, 1.0]

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            kept[state.global_step] = sides(trainer)

    trainer = scripted(tmp_path, monkeypatch, scores, early_stopping_patience=2, callbacks=[Keep()])
    trainer.train()
    assert trainer.state.global_step == 4
    assert logged(trainer, "eval_style_score") == [0.2, 0.9, 0.5, 0.6]
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    names = [name for name in kept[2] if not name.startswith("prototypes")]
    assert_equal({n: sides(trainer)[n] for n in names}, {n: kept[2][n] for n in names})
    assert any(not torch.equal(kept[4][name], kept[2][name]) for name in names if "discriminator." in name)
    assert any(not torch.equal(kept[4][name], kept[2][name]) for name in names if "style_adapter_" in name)
    patient = scripted(tmp_path / "patient", monkeypatch, scores)
    patient.train()
    assert patient.state.global_step == 5


def test_evaluation_judges_the_rewrites_of_the_first_rows(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=toy_rows(["mn", "op", "qr"]), eval_samples=4)
    metrics = trainer.evaluate()
    sources, targets = ["mn", "mn", "op", "op"], ["MN!", "mn.", "OP!", "op."]
    outputs = transfer(trainer.style_model, trainer.processing_class, sources, ["loud", "calm"] * 2)
    rows = toy_rows()
    judge = StyleJudge.fit(rows["target"], rows["style"])
    assert metrics["eval_loud_style_accuracy"] == judge.accuracy(outputs[::2], ["loud"] * 2)
    assert metrics["eval_calm_style_accuracy"] == judge.accuracy(outputs[1::2], ["calm"] * 2)
    assert {"eval_loss", "eval_style_score", "eval_loud_bleu", "eval_calm_self_bleu"} <= metrics.keys()
    assert len(targets) == len(trainer.eval_rows)


def test_evaluating_other_rows_judges_those_and_leaves_the_others_in_place(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=toy_rows(["mn"]), eval_samples=4)
    own = trainer.evaluate()
    others = toy_rows(["op", "qr"])
    found = trainer.evaluate(others, metric_key_prefix="test")
    outputs = transfer(trainer.style_model, trainer.processing_class, others["source"], others["style"])
    assert found["test_loud_bleu"] == bleu(outputs[::2], others["target"][::2])
    assert own["eval_loss"] != found["test_loss"]
    assert trainer.evaluate()["eval_loss"] == own["eval_loss"]
    with pytest.raises(ValueError, match="eval_dataset lacks the column 'target'"):
        trainer.evaluate(others.remove_columns("target"))


# One style, which no judge can tell from another


def of_one_style(sources=None) -> datasets.Dataset:
    return toy_rows(sources).filter(lambda row: row["style"] == "loud")


def test_texts_of_one_style_are_evaluated_without_style_accuracy_and_joint_score(tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 2.0, "max_steps": 2}
    trainer = make_trainer(tmp_path, rows=of_one_style(), eval_dataset=of_one_style(["mn op qr st"]), **options)
    trainer.train()
    metrics = trainer.evaluate()
    outputs = transfer(trainer.style_model, trainer.processing_class, ["mn op qr st"], "loud")
    assert metrics["eval_loud_bleu"] == bleu(outputs, ["MN OP QR ST!"])
    assert metrics["eval_loud_self_bleu"] == bleu(outputs, ["mn op qr st"])
    assert metrics["eval_loud_content"] == sentence_chrf(outputs, ["MN OP QR ST!"])[0]
    assert 0 <= metrics["eval_loud_fluency"] <= 1
    assert not [name for name in metrics if "accuracy" in name or "joint" in name or "style_score" in name]


def test_written_texts_of_one_style_are_evaluated_by_their_variety(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["ab cd", "ef gh"], "style": ["calm"] * 2})
    trainer = make_trainer(tmp_path, rows=rows, eval_dataset=rows, task="generation", eval_max_new_tokens=4)
    assert {"eval_distinct_2", "eval_copy_rate"} <= (found := trainer.evaluate()).keys()
    assert "eval_style_score" not in found


@pytest.mark.parametrize(
    "options",
    [
        {"load_best_model_at_end": True, "save_strategy": "steps", "eval_strategy": "steps"},
        {"early_stopping_patience": 1, "eval_strategy": "steps"},
        {"save_strategy": "best", "eval_strategy": "steps"},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"},
    ],
)
def test_what_waits_for_the_joint_score_of_one_style_is_refused(tmp_path, options):
    rows = of_one_style()
    with pytest.raises(
        ValueError, match=r"'style_score' must be a metric that needs no judge: .*='loss', or pass judge="
    ):
        make_trainer(tmp_path, rows=rows, eval_dataset=rows, **options)
    judge = StyleJudge.fit(toy_rows()["target"], toy_rows()["style"])
    make_trainer(tmp_path, rows=rows, eval_dataset=rows, judge=judge, **options)
    least = make_trainer(tmp_path, rows=rows, eval_dataset=rows, metric_for_best_model="loss", **options)
    assert least.args.greater_is_better is False


# Resuming


def test_resuming_restores_both_sides_and_ends_where_an_uninterrupted_run_ends(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3.0, "max_steps": 6, "per_device_train_batch_size": 4}
    options |= {"lr_scheduler_type": "linear", "w_r1": 0.1, "adversary_start": 1, "adversary_fraction": 0.6}

    def build(folder: str, seed: int = 0) -> StyleTrainer:
        model = adapted(seed=seed, dropout=0.1, noise_dim=2)
        return make_trainer(tmp_path / folder, model=model, **options)

    whole = build("whole")
    kept = {}

    class Keep(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            kept[state.global_step] = sides(whole)

    whole.add_callback(Keep())
    whole.train()
    resumed = build("resumed", seed=5)
    assert not torch.equal(next(iter(sides(resumed).values())), next(iter(kept[3].values())))
    resumed._load_from_checkpoint(str(tmp_path / "whole" / "checkpoint-3"))
    assert_equal(sides(resumed), kept[3])
    resumed = build("resumed", seed=5)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert_equal(sides(resumed), kept[6])
    for name in ("loss_ce", "loss_d_adv", "d_learning_rate"):
        assert logged(resumed, name)[-3:] == logged(whole, name)[-3:]


@pytest.mark.parametrize(
    "options",
    [
        {"game": "hinge", "discriminator_smoothing": 0.0},
        {"game": "relativistic", "discriminator_spectral_norm": True},
        {"game": "minimax", "bf16": True},
    ],
    ids=["hinge", "relativistic and spectral norm", "minimax in bf16"],
)
def test_every_game_is_played_and_restored(tmp_path, options):
    first = make_trainer(tmp_path, w_r1=0.1, **options)
    first.train()
    expected = {"ce", "adv", "feat", "cls", "d_adv", "d_cls", "d_r1"}
    assert expected == {name.removeprefix("loss_") for name in first.state.log_history[0] if name.startswith("loss_")}
    assert all(tensor.isfinite().all() for tensor in sides(first).values())
    first.save_model(str(tmp_path))
    second = make_trainer(tmp_path, w_r1=0.1, **options)
    second._load_from_checkpoint(str(tmp_path))
    assert_equal(sides(second), sides(first))


def test_an_adapter_of_another_name_is_saved_and_restored(tmp_path):
    def build(seed: int) -> StyleTrainer:
        torch.manual_seed(seed)
        config = StyleAdapterConfig(styles=STYLES, r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(llama(), config, adapter_name="house")
        return make_trainer(tmp_path, model=model, save_strategy="steps", save_steps=2.0, max_steps=2)

    first, second = build(0), build(1)
    first.train()
    second._load_from_checkpoint(str(tmp_path / "checkpoint-2"))
    assert_equal(sides(second), sides(first))


def test_a_checkpoint_of_another_adapter_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, model=adapted(target_modules=["q_proj"]))
    trainer.save_model(str(tmp_path))
    with pytest.raises(ValueError, match=r"lacks base_model.*style_adapter_.*; it belongs to another adapter"):
        make_trainer(tmp_path, model=adapted())._load_from_checkpoint(str(tmp_path))


# Learning


def test_the_two_styles_of_a_toy_give_two_different_right_outputs(trained):
    model, tokenizer = trained.style_model, trained.processing_class
    assert transfer(model, tokenizer, SOURCES, "loud") == [s.upper() + "!" for s in SOURCES]
    assert transfer(model, tokenizer, SOURCES, "calm") == [s + "." for s in SOURCES]


def test_an_encoder_decoder_learns_the_toy_too(tmp_path):
    trainer = make_trainer(
        tmp_path,
        model=adapted(t5(), task_type="SEQ_2_SEQ_LM", r=16),
        rows=toy_rows(SOURCES[:2]),
        max_steps=80,
        logging_steps=40.0,
    )
    trainer.train()
    assert {"loss_adv", "loss_d_adv", "loss_cls"} <= trainer.state.log_history[0].keys()
    model, tokenizer = trainer.style_model, trainer.processing_class
    assert transfer(model, tokenizer, SOURCES[:2], "loud") == [s.upper() + "!" for s in SOURCES[:2]]
    assert transfer(model, tokenizer, SOURCES[:2], "calm") == [s + "." for s in SOURCES[:2]]


# What is refused before any step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": datasets.Dataset.from_dict({"source": ["a"], "target": ["b"]})}, "lacks the column 'style'"),
        ({"rows": toy_rows().map(lambda row: {"style": "laud"})}, "styles='laud' must be one of .*: loud, calm"),
        ({"eval_dataset": toy_rows().select([])}, "eval_dataset has 0 rows"),
        (
            {"expected_processes": 2},
            r"expected_processes=2 must equal the number of processes, 1; .* --num_processes 2",
        ),
        ({"discriminator_blocks": 3}, "depth=3 must be between 0 and 2, .* set discriminator_blocks"),
        ({"max_length": 5}, "row 0 has 7 tokens and must have at most max_length=5"),
        ({"max_length": 5, "eval_strategy": "steps"}, "didn't pass an `eval_dataset`"),  # before tokens are counted
    ],
)
def test_a_run_that_could_not_go_well_is_refused_before_any_step(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **options)


def test_the_expected_number_of_processes_passes(tmp_path):
    make_trainer(tmp_path, expected_processes=1)


# A backbone that trains too


def test_a_backbone_that_trains_plays_against_a_frozen_copy_of_itself(tmp_path):
    model = adapted(llama(), trainable="all")
    with pytest.raises(ValueError, match=r"must be frozen, .*discriminator_copy=True in StyleTrainingArguments"):
        make_trainer(tmp_path, model=model)
    trainer = make_trainer(tmp_path, model=model, discriminator_copy=True, adversary_start=0, max_steps=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    read = {name: p.detach().clone() for name, p in trainer.model.features.backbone.named_parameters()}
    trainer.train()
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} == set(before)
    assert all(torch.equal(p, read[n]) for n, p in trainer.model.features.backbone.named_parameters())
    trainer.save_model(tmp_path / "whole")
    loaded = PeftModel.from_pretrained(llama(), tmp_path / "whole")
    assert all(torch.equal(p, model.get_parameter(n)) for n, p in loaded.named_parameters())
