"""What differs between tasks: classification trained and judged, styles that change the answer."""

from dataclasses import replace

import datasets
import pytest
import torch
from training_fixtures import (
    adapted,
    bert_tagger,
    byte_tokenizer,
    closing_tokenizer,
    gpt2_classifier,
    gpt2_tagger,
    llama,
    llama_classifier,
    llama_tagger,
    make_trainer,
    masked_bert,
    randomised,
    t5,
    t5_classifier,
    t5_tagger,
    toy_rows,
)

from style_adapter.inference import classify, tag, write
from style_adapter.style import StyleBank
from style_adapter.tasks import TASKS, Setting, TransferTask

TEXTS = ["ab", "ba", "aab", "bba", "ac", "bc", "a", "b"]


def class_rows() -> datasets.Dataset:
    """Does the text begin with an a? 1 for yes in the loud style, 0 for yes in the calm one."""
    rows = [
        {"text": text, "label": int(text.startswith("a")) ^ (style == "calm"), "style": style}
        for text in TEXTS
        for style in ("loud", "calm")
    ]
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("backbone", [llama_classifier, gpt2_classifier, t5_classifier])
def test_a_classifier_learns_a_toy_whose_labels_depend_on_the_style(tmp_path, backbone):
    rows, tokenizer, rate = class_rows(), byte_tokenizer(), 1e-2
    if backbone is t5_classifier:  # reads the closing token
        tokenizer, rate = closing_tokenizer(), 3e-3
    model = adapted(backbone(num_labels=2), task_type="SEQ_CLS", noise_dim=1)
    trainer = make_trainer(
        tmp_path,
        model=model,
        rows=rows,
        tokenizer=tokenizer,
        eval_dataset=rows,
        task="classification",
        max_steps=80,
        logging_steps=40.0,
        learning_rate=rate,
        per_device_train_batch_size=16,
    )
    assert trainer.model.discriminator is None
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_accuracy"] < 0.9
    assert after["eval_accuracy"] == after["eval_macro_f1"] == after["eval_style_score"] == 1.0
    assert after["eval_loss"] < 0.1 * before["eval_loss"]
    for style, expected in (("loud", [1, 0] * 4), ("calm", [0, 1] * 4)):
        assert classify(model, tokenizer, TEXTS, style, batch_size=3) == expected
    assert classify(model, tokenizer, rows["text"], rows["style"]) == rows["label"]


def tagged_rows() -> datasets.Dataset:
    """Is the word one that the style asks for: an a in the loud style, a b in the calm one? Or neither?"""
    texts = [["a", "b", "c"], ["b", "a"], ["c", "a", "a", "b"], ["b"], ["a", "cc"], ["bb", "a"]]
    classes = {"loud": {"a": 1, "b": 0, "c": 2}, "calm": {"a": 0, "b": 1, "c": 2}}
    rows = [
        {"text": words, "label": [classes[style][word[0]] for word in words], "style": style}
        for words in texts
        for style in ("loud", "calm")
    ]
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("backbone", [bert_tagger, gpt2_tagger, llama_tagger, t5_tagger])
def test_a_tagger_learns_a_toy_whose_labels_depend_on_the_style(tmp_path, backbone):
    rows = tagged_rows()
    model = adapted(backbone(num_labels=3), task_type="TOKEN_CLS")
    options = {"max_steps": 80, "logging_steps": 40.0, "per_device_train_batch_size": 12}
    task = "token_classification"
    trainer = make_trainer(tmp_path, model=model, rows=rows, eval_dataset=rows, task=task, **options)
    assert trainer.model.discriminator is None
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_macro_f1"] < 0.9
    assert after["eval_accuracy"] == after["eval_macro_f1"] == after["eval_style_score"] == 1.0
    assert after["eval_loss"] < 0.1 * before["eval_loss"]
    assert tag(model, byte_tokenizer(), rows["text"], rows["style"], batch_size=5) == rows["label"]


def test_words_without_a_label_are_not_scored_and_the_likelihood_is_a_labelled_word(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["ab c", "d"], "label": [[1, -100], [0]]})
    model = adapted(llama_tagger(num_labels=2), task_type="TOKEN_CLS")
    trainer = make_trainer(tmp_path, model=model, rows=rows, task="token_classification")
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert [int(count) for count in TASKS["token_classification"].count(batch)] == [2, 0, 0]
    scores = TASKS["token_classification"].score([[1, 1], [1]], rows, trainer.setting)
    assert scores == {"accuracy": 0.5, "macro_f1": pytest.approx((2 / 3 + 0) / 2), "style_score": scores["macro_f1"]}


def styled_texts() -> datasets.Dataset:
    """The style is in each pair of letters: "xax" is loud, "xbx" is calm."""
    letters = {"loud": "a", "calm": "b"}
    texts = [(f"{x}{letters[s]}{x} {y}{letters[s]}{y}", s) for x in "xyz" for y in "xyz" for s in ("loud", "calm")]
    return datasets.Dataset.from_list([{"text": text, "style": style} for text, style in texts])


def test_an_encoder_learns_to_tell_masked_tokens_by_the_style(tmp_path):
    rows = styled_texts()
    options = {"max_steps": 150, "logging_steps": 50.0, "per_device_train_batch_size": 18, "learning_rate": 3e-3}
    model = adapted(masked_bert(), task_type=None)
    task, tokenizer = "masked_lm", byte_tokenizer(mask_token="<mask>")
    options |= {"tokenizer": tokenizer, "eval_dataset": rows, "task": task}
    trainer = make_trainer(tmp_path, model=model, rows=rows, **options)
    before = trainer.evaluate()
    trainer.setting.draws.clock.epoch = 3
    again = trainer.evaluate()
    assert [again[name] for name in ("eval_loss", "eval_accuracy")] == [before["eval_loss"], before["eval_accuracy"]]
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_accuracy"] < 0.1
    assert after["eval_accuracy"] == after["eval_style_score"] > 0.8
    assert after["eval_loss"] < 0.4 * before["eval_loss"]
    wrong = {"loud": "calm", "calm": "loud"}
    swapped = rows.map(lambda row: {"style": wrong[row["style"]]})
    assert trainer.evaluate(swapped)["eval_accuracy"] < after["eval_accuracy"] - 0.1


def test_the_share_told_right_is_that_of_the_evaluations_own_batches(tmp_path):
    rows = styled_texts()
    model = randomised(adapted(masked_bert(), task_type=None))
    task, tokenizer = "masked_lm", byte_tokenizer(mask_token="<mask>")
    trainer = make_trainer(tmp_path, model=model, rows=rows, eval_dataset=rows, task=task, tokenizer=tokenizer)
    batch = next(iter(trainer.get_eval_dataloader()))
    logits = model.eval()(batch["input_ids"], batch["attention_mask"], styles=rows["style"][:8]).logits
    masked = batch["labels"] != -100
    told = (logits.argmax(-1) == batch["labels"])[masked].tolist()
    assert [
        right for text in TASKS[task].predict(trainer.eval_rows.select(range(8)), trainer.setting) for right in text
    ] == told
    some = trainer.eval_rows.select([1, 5, 6])  # what another process predicts of the same rows
    assert TASKS[task].predict(some, trainer.setting) == [
        TASKS[task].predict(trainer.eval_rows, trainer.setting)[i] for i in (1, 5, 6)
    ]


def test_each_epoch_begins_with_the_clock_set_and_draws_other_masks(tmp_path):
    rows, seen = styled_texts(), []
    model = adapted(masked_bert(), task_type=None)
    task, tokenizer = "masked_lm", byte_tokenizer(mask_token="<mask>")
    options = {"max_steps": -1, "num_train_epochs": 3.0, "per_device_train_batch_size": 18}
    trainer = make_trainer(tmp_path, model=model, rows=rows, task=task, tokenizer=tokenizer, **options)
    collate = trainer.data_collator

    def noting(batch):
        seen.append(
            (trainer.setting.draws.clock.epoch, collate(sorted(batch, key=lambda row: row["row_id"]))["labels"])
        )
        return collate(batch)

    trainer.data_collator = noting
    trainer.train()
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert all(not torch.equal(seen[i][1], seen[j][1]) for i, j in ((0, 1), (0, 2), (1, 2)))


def story_rows() -> datasets.Dataset:
    """What follows a prompt is loud or calm; without a prompt there is one text of each style."""
    begun = [{"prompt": p, "text": p.upper() + " YES", "style": "loud"} for p in ("ab", "cd", "ef")]
    begun += [{"prompt": p, "text": p + " no", "style": "calm"} for p in ("ab", "cd", "ef")]
    free = [{"prompt": None, "text": "OH MY", "style": "loud"}, {"prompt": None, "text": "well then", "style": "calm"}]
    return datasets.Dataset.from_list(begun + free)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_writer_learns_to_write_in_a_style_from_a_prompt_or_from_nothing(tmp_path, kind):
    rows = story_rows()
    options = {"max_steps": 150, "logging_steps": 50.0, "per_device_train_batch_size": 8, "adversary_start": 100}
    options |= {"gate_learning_rate": 1e-2, "eval_max_new_tokens": 12}
    # A tied head that is frozen bounds the likelihood by the size of its embeddings.
    if kind == "t5":
        model, options["max_steps"] = adapted(t5(initializer_factor=2.0), task_type="SEQ_2_SEQ_LM"), 250
    else:
        model = adapted(llama(initializer_range=0.5))
    trainer = make_trainer(tmp_path, model=model, rows=rows, eval_dataset=rows, task="generation", **options)
    assert trainer.model.discriminator is not None
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.1 * before["eval_loss"]
    assert after["eval_style_accuracy"] > 0.8
    assert after["eval_copy_rate"] > 0.5 > before["eval_copy_rate"]  # it was taught these texts and no others
    assert after["eval_style_score"] == pytest.approx(after["eval_style_accuracy"] * after["eval_distinct_2"])
    assert any("loss_d_adv" in line for line in trainer.state.log_history)
    told = write(
        model, byte_tokenizer(), ["cd", "cd", ""], ["loud", "calm", "loud"], temperature=0.0, max_new_tokens=12
    )
    assert told == [["CD YES"], ["cd no"], ["OH MY"]]


def test_writing_is_scored_by_style_and_variety(tmp_path):
    rows = story_rows()
    trainer = make_trainer(tmp_path, rows=rows, task="generation")
    setting = replace(trainer.setting, judge=TASKS["generation"].judge_of(rows, trainer.setting))
    learnt = TASKS["generation"].score(list(rows["text"]), rows, setting)
    assert learnt["style_accuracy"] == learnt["copy_rate"] == 1.0
    assert learnt["distinct_2"] == learnt["style_score"] == 1.0  # eight texts of two words
    repeated = TASKS["generation"].score(["AB YES"] * 8, rows, setting)
    assert repeated["style_accuracy"] == 0.5
    assert repeated["style_score"] == 0.5 / 8
    assert TASKS["generation"].score([""] * 8, rows, setting)["style_score"] == 0.0


def test_rows_without_a_style_get_the_default_one(tmp_path):
    model = adapted(llama_classifier(num_labels=2), task_type="SEQ_CLS", default_style="calm")
    rows = class_rows().remove_columns("style")
    trainer = make_trainer(tmp_path, model=model, rows=rows, eval_dataset=rows, task="classification")
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch["style_ids"][:, 0].tolist()) == {1}
    assert trainer.evaluate()["eval_accuracy"] <= 1.0


def test_text_pairs_are_judged_as_they_are_trained(tmp_path):
    model = randomised(adapted(llama_classifier(num_labels=2), task_type="SEQ_CLS"))
    rows = class_rows().map(lambda row: {"text_pair": row["text"][::-1]})
    trainer = make_trainer(tmp_path, model=model, rows=rows, eval_dataset=rows, task="classification")
    found = TASKS["classification"].predict(rows, trainer.setting)
    joined = [one + other for one, other in zip(rows["text"], rows["text_pair"], strict=True)]
    assert found == classify(model, byte_tokenizer(), joined, rows["style"])


def test_a_class_that_the_head_does_not_have_is_refused(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 2]})
    model = adapted(llama_classifier(num_labels=2), task_type="SEQ_CLS")
    with pytest.raises(ValueError, match="label 2 must be < num_labels=2; load the backbone with num_labels=3"):
        make_trainer(tmp_path, model=model, rows=rows, task="classification")


def test_a_class_of_a_word_that_the_head_does_not_have_is_refused(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a b"], "label": [[0, 3]]})
    model = adapted(llama_tagger(num_labels=2), task_type="TOKEN_CLS")
    with pytest.raises(ValueError, match="label 3 must be < num_labels=2; load the backbone with num_labels=4"):
        make_trainer(tmp_path, model=model, rows=rows, task="token_classification")


def test_items_are_counted_by_their_weight_and_by_the_rows_judged(tmp_path):
    trainer = make_trainer(tmp_path, adversary_fraction=0.6, novel_token_weight=2.0)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    weight, judged, back = TransferTask.count(batch)
    # The bytes of "AB!", "ab.", "CDE!" and "cde." that their sources lack, and the end of each text.
    assert weight == 2 * (3 + 1 + 1 + 1 + 4 + 1 + 1 + 1) + (2 + 3)
    assert 0 < judged == batch["judged"].sum() < 4
    assert back == 0


def test_scores_are_those_of_the_directions(tmp_path):
    trainer = make_trainer(tmp_path)
    rows = toy_rows(["ab cd ef gh", "ij kl mn op"])  # BLEU counts four words in a row
    setting = Setting(trainer.style_model, byte_tokenizer(), trainer.args, TransferTask.judge_of(rows, trainer.setting))
    copied = TransferTask.score(list(rows["source"]), rows, setting)
    right = TransferTask.score(list(rows["target"]), rows, setting)
    assert right["loud_style_accuracy"] == right["calm_style_accuracy"] == 1.0
    assert right["style_score"] > copied["style_score"]
    assert copied["calm_self_bleu"] >= right["calm_self_bleu"]


def test_styles_are_encoded_by_the_banks_own_code(tmp_path):
    trainer = make_trainer(tmp_path)
    styles = ["calm", {"loud": 0.5, "calm": 0.5}]
    ids, weights = trainer.setting.encode_styles(styles)
    code = StyleBank(("loud", "calm")).code(styles)
    assert torch.equal(ids, code.ids)
    assert torch.equal(weights, code.weights)
