"""transformers' Trainer and pipelines, against the model called by hand."""

import pytest
import torch
from datasets import Dataset
from peers_fixtures import trained_rows
from peft import PeftModel
from training_fixtures import STYLES, adapted, byte_tokenizer, llama, llama_classifier
from transformers import (
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    default_data_collator,
    pipeline,
)

from style_adapter import StyleCollator, styled

TEXTS = ["ab", "c", "def", "gh"]
MIXED = ["loud", "calm", "calm", "loud"]


def tokens(styles, column="styles"):
    """Rows of four tokens, ready for the default collator."""
    ids = torch.randint(2, 258, (len(styles), 4), generator=torch.Generator().manual_seed(0)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids, column: styles})


def trainer_of(model, data, folder, **options):
    defaults = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "max_steps": 3}
    defaults |= {"learning_rate": 0.1, "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0}
    collator = options.pop("data_collator", None)
    args = TrainingArguments(str(folder), **defaults | {"per_device_train_batch_size": len(data)} | options)
    return Trainer(model=model, args=args, train_dataset=data, eval_dataset=data, data_collator=collator)


def random_adapter() -> PeftModel:
    return adapted(init_weights=False)


@pytest.mark.parametrize(
    ("styles", "collator"),
    [([0, 1, 1, 0], None), (MIXED, StyleCollator(default_data_collator, column="styles"))],
    ids=["row numbers", "names"],
)
def test_trainer_takes_the_steps_of_a_loop_that_names_each_rows_style(styles, collator, tmp_path):
    model, by_hand = random_adapter(), random_adapter()
    data = tokens(styles)
    trainer_of(model, data, tmp_path, data_collator=collator).train()

    ids = torch.tensor(data["input_ids"])
    optimizer = torch.optim.SGD((p for p in by_hand.parameters() if p.requires_grad), lr=0.1)
    for _ in range(3):
        by_hand(input_ids=ids, labels=ids, styles=MIXED).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    start = dict(random_adapter().named_parameters())
    moved = [name for name, p in by_hand.named_parameters() if not torch.equal(p, start[name])]
    assert moved
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, by_hand.get_parameter(name), atol=1e-5, rtol=1e-4)


def test_the_default_collator_drops_names_and_the_default_style_trains_alone(tmp_path):
    model, data = random_adapter(), tokens(["calm"] * 4)
    assert "styles" not in default_data_collator(list(data))
    assert trained_rows(model, trainer_of(model, data, tmp_path).train) == {0}
    collator = StyleCollator(default_data_collator, column="styles")
    assert trained_rows(model, trainer_of(model, data, tmp_path, data_collator=collator).train) == {1}


def test_a_column_of_another_name_must_be_kept(tmp_path):
    data, collator = tokens(MIXED, column="style"), StyleCollator(default_data_collator)
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        trainer_of(random_adapter(), data, tmp_path, data_collator=collator).train()
    kept = trainer_of(random_adapter(), data, tmp_path, data_collator=collator, remove_unused_columns=False)
    assert trained_rows(kept.model, kept.train) == {0, 1}


def test_evaluation_and_prediction_run_in_each_rows_style(tmp_path):
    model, data = random_adapter().eval(), tokens(MIXED)
    trainer = trainer_of(
        model, data, tmp_path, data_collator=StyleCollator(default_data_collator, column="styles"),
        per_device_eval_batch_size=2,
    )  # fmt: skip
    ids = torch.tensor(data["input_ids"])
    with torch.no_grad():
        wanted, default = model(input_ids=ids, labels=ids, styles=MIXED), model(input_ids=ids, labels=ids)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted.loss.item(), abs=1e-5)
    assert abs(wanted.loss - default.loss) > 1e-3
    torch.testing.assert_close(torch.from_numpy(trainer.predict(data).predictions), wanted.logits, atol=1e-5, rtol=1e-4)


def test_a_padding_collator_keeps_mixtures_too():
    rows = [{"input_ids": [3, 4], "labels": [3, 4], "style": {"loud": 0.5, "calm": None}}]
    rows += [{"input_ids": [5], "labels": [5], "style": {"loud": None, "calm": 1.0}}]  # datasets fills absent keys
    batch = StyleCollator(DataCollatorForSeq2Seq(byte_tokenizer()))(rows)
    model = random_adapter().eval()
    loud, calm = (model(input_ids=batch["input_ids"], styles=s).logits for s in (0.5 * model.styles["loud"], "calm"))
    with torch.no_grad():
        both = model(input_ids=batch["input_ids"], styles=batch["styles"]).logits
    torch.testing.assert_close(both, torch.stack([loud[0], calm[1]]), atol=1e-5, rtol=1e-4)


# Pipelines


@pytest.fixture
def writer():
    """A text-generation pipeline and what the model itself writes in a style, new tokens alone."""
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    model = random_adapter().eval()
    options = {"max_new_tokens": 5, "do_sample": False}
    made = pipeline("text-generation", model=model, tokenizer=tokenizer, return_full_text=False, **options)

    def written(styles):
        batch = tokenizer(TEXTS, return_tensors="pt", padding=True, return_token_type_ids=False)
        ids = model.generate(**batch, styles=styles, **options)[:, batch["input_ids"].shape[1] :]
        return tokenizer.batch_decode(ids, skip_special_tokens=True)

    return made, written


def texts(found):
    return [results[0]["generated_text"] for results in found]


@pytest.mark.parametrize("style", STYLES)
def test_a_text_pipeline_writes_in_the_style_passed_on_or_opened_around_it(style, writer):
    made, written = writer
    assert written("loud") != written("calm")
    assert texts(made(TEXTS, styles=style)) == written(style)
    with styled(made.model, style):
        assert texts(made(TEXTS)) == written(style)


def test_a_text_pipeline_takes_one_style_a_text_in_one_batch_and_refuses_them_one_by_one(writer):
    made, written = writer
    assert texts(made(TEXTS, styles=MIXED, batch_size=4)) == written(MIXED)
    with pytest.raises(ValueError, match="4 styles for a batch of 1 rows"):
        made(TEXTS, styles=MIXED)


def test_a_classifying_pipeline_keeps_styles_to_itself_so_the_style_is_opened_around_it():
    model, tokenizer = (
        adapted(llama_classifier(num_labels=3), init_weights=False, task_type="SEQ_CLS").eval(),
        byte_tokenizer(),
    )
    made = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None, function_to_apply="none")

    def scores(found):
        return torch.tensor(
            [[label["score"] for label in sorted(row, key=lambda label: label["label"])] for row in found]
        )

    def by_hand(style):
        rows = [tokenizer(text, return_tensors="pt", return_token_type_ids=False) for text in TEXTS]
        return torch.cat([model(**row, styles=style).logits.detach() for row in rows])

    with styled(model, "calm"):
        torch.testing.assert_close(scores(made(TEXTS)), by_hand("calm"))
    torch.testing.assert_close(scores(made(TEXTS, styles="calm")), by_hand("loud"))  # dropped, so the default style
    assert (by_hand("calm") - by_hand("loud")).abs().max() > 1e-2


def test_a_model_adapted_by_transformers_itself_runs_in_a_pipeline():
    model = llama()
    model.add_adapter(adapted(init_weights=False).peft_config["default"])
    made = pipeline("text-generation", model=model, tokenizer=byte_tokenizer(), max_new_tokens=5, do_sample=False)
    assert texts(made(TEXTS, styles="loud")) != texts(made(TEXTS, styles="calm"))
