"""The card: read back by the hub's own client, its snippet run, no path of this machine in it."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard, metadata_load
from peft import LoraConfig, get_peft_model
from training_fixtures import (
    SOURCES,
    adapted,
    byte_tokenizer,
    llama,
    llama_classifier,
    llama_tagger,
    make_trainer,
    masked_bert,
    randomised,
    t5,
)

from style_adapter import StyleJudge, StyleTransferEvaluator, write_report
from style_adapter.card import has_card, hub_base, write_card
from style_adapter.inference import classify, tag, transfer, write

RECIPE = {"r": 8, "styles": ["loud", "calm"], "prompt": "{source}\n"}


def named(model, base: str | None):
    """`model`, said to stand on `base`."""
    model.peft_config["default"].base_model_name_or_path = base
    return model


def test_the_head_is_yaml_that_the_hub_reads(tmp_path):
    write_card(named(adapted(), "org/tiny"), tmp_path, repo="me/house", recipe=RECIPE)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.base_model == "org/tiny"
    assert "style_adapter" in card.data.tags
    assert card.text.strip().startswith("# me/house")
    assert "- `r`: 8" in card.text


def test_the_card_tells_how_to_use_the_adapter_with_and_without_the_package(tmp_path):
    text = str(write_card(named(adapted(), "org/tiny"), tmp_path, repo="me/house", numbers="| a table |"))
    assert "`import style_adapter` first: without it PEFT answers `KeyError: 'STYLE_ADAPTER'`" in text
    assert "style-adapter export --adapter me/house --style loud OUT" in text
    assert 'model, tokenizer = load("me/house")' in text
    assert "| a table |" in text
    assert "2 styles: loud, calm" in text


def test_what_an_evaluation_found_is_in_the_index_by_direction_beside_the_copied_input(tmp_path):
    sources, styles = ["xab", "xcd", "xef", "xgh"], ["loud", "loud", "calm", "calm"]
    judge = StyleJudge.fit([s.upper() + "!" for s in SOURCES] + SOURCES, ["loud"] * 8 + ["calm"] * 8)
    evaluator = StyleTransferEvaluator({"tf-idf": judge})
    outputs = {"copy": sources, "after": ["XAB!", "XCD!", "xef", "xgh"]}
    found = evaluator.score(outputs, sources, styles, references=["XAB!", "XCD!", "xef.", "xgh."])
    found.save(tmp_path)
    card = write_card(named(adapted(), "org/tiny"), tmp_path, repo="me/house")
    index = metadata_load(tmp_path / "README.md")["model-index"]
    assert card.data.pipeline_tag == "text-generation"
    assert index[0]["name"] == "me/house"
    by_name = {one["dataset"]["name"]: {m["type"]: m["value"] for m in one["metrics"]} for one in index[0]["results"]}
    assert {*by_name} == {
        f"held-out rows, {d}, {s}" for d in found.scores["after"] for s in ("this adapter", "the input copied")
    }
    for direction, numbers in found.scores["after"].items():
        indexed = by_name[f"held-out rows, {direction}, this adapter"]
        assert indexed == {name: round(numbers[name].value, 4) for name in indexed}
        assert {"style_accuracy", "bleu", "self_bleu"} <= {*indexed}


def test_pictures_that_are_there_are_shown_and_the_rows_are_counted(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.train()
    write_report(trainer, recipe=RECIPE)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "](losses.png)" in text
    assert "](joint.png)" not in text
    assert "16 rows: 8 of loud, 8 of calm." in text
    (tmp_path / "joint.png").touch()
    write_card(trainer.style_model, tmp_path)
    again = (tmp_path / "README.md").read_text("utf-8")
    assert "](joint.png)" in again
    assert again[again.index("## Numbers") :] == text[text.index("## Numbers") :]


@pytest.mark.parametrize("base", ["absolute", "relative", "dotted", None])
def test_no_path_of_this_machine_is_in_the_card(tmp_path, monkeypatch, base):
    monkeypatch.chdir(tmp_path)
    Path("models/tiny").mkdir(parents=True)
    Path("rows.jsonl").touch()
    paths = {"absolute": str(tmp_path / "models/tiny"), "relative": "models/tiny", "dotted": "./models/tiny"}
    recipe = {
        **RECIPE,
        "train_file": "rows.jsonl",
        "eval_file": str(tmp_path / "rows.jsonl"),
        "output_dir": "./out",
        "resume_from_checkpoint": "~/runs/1",
        "files": ["rows.jsonl"],
        "fsdp_config": {"path": str(tmp_path / "models")},
    }
    text = str(write_card(named(adapted(), base and paths[base]), tmp_path / "models", recipe=recipe))
    for part in (str(tmp_path), "models/tiny", "rows.jsonl", "./out", "~/runs"):
        assert part not in text
    assert "for its backbone with 2 styles" in text
    assert "- `r`: 8" in text
    assert ModelCard(text).data.base_model is None


def run_snippet(model, folder: Path, capsys, *, tokenizer=None, **card) -> str:
    """What the card's first snippet prints; the backbone, which is no hub's, put where the card asks for it."""
    model.save_pretrained(folder / "adapter")
    (tokenizer or byte_tokenizer()).save_pretrained(folder / "adapter")
    text = str(write_card(model, folder / "adapter", repo=str(folder / "adapter"), **card))
    snippet = text.split("```python\n")[1].split("```", maxsplit=1)[0]
    asked = 'base="the backbone that it was trained on"'
    assert asked in snippet
    capsys.readouterr()
    exec(snippet.replace(asked, f"base={str(folder / 'base')!r}"), {})
    return capsys.readouterr().out


def test_the_snippet_of_the_card_runs(tmp_path, capsys):
    llama().save_pretrained(tmp_path / "base")
    model = named(randomised(adapted()).eval(), str(tmp_path / "base"))
    mixture = 0.7 * model.styles["loud"] + 0.3 * model.styles["calm"]
    expected = [transfer(model, byte_tokenizer(), ["your text"], style) for style in ("loud", mixture)]
    assert run_snippet(model, tmp_path, capsys) == "".join(f"{texts}\n" for texts in expected)
    assert expected[0] != expected[1]


def test_the_snippet_of_a_classifiers_card_runs(tmp_path, capsys):
    llama_classifier(num_labels=3, pad_token_id=None).save_pretrained(tmp_path / "base")
    backbone = llama_classifier(num_labels=3)
    model = named(randomised(adapted(backbone, task_type="SEQ_CLS")), str(tmp_path / "base"))
    expected = classify(model.eval(), byte_tokenizer(), ["your text"])
    assert run_snippet(model, tmp_path, capsys) == f"{expected}\n"


def test_the_snippet_of_a_taggers_card_runs(tmp_path, capsys):
    llama_tagger(num_labels=3).save_pretrained(tmp_path / "base")
    model = named(randomised(adapted(llama_tagger(num_labels=3), task_type="TOKEN_CLS")), str(tmp_path / "base"))
    expected = tag(model.eval(), byte_tokenizer(), ["your words"], "loud")
    assert run_snippet(model, tmp_path, capsys) == f"{expected}\n"


def test_the_snippet_of_a_masked_language_models_card_runs(tmp_path, capsys):
    masked_bert().save_pretrained(tmp_path / "base")
    model, tokenizer = randomised(adapted(masked_bert(), task_type=None)), byte_tokenizer(mask_token="<mask>")
    ids = tokenizer("your <mask>", return_tensors="pt")["input_ids"]
    expected = tokenizer.decode(model.eval()(ids, styles="loud").logits.argmax(-1)[0])
    assert run_snippet(named(model, str(tmp_path / "base")), tmp_path, capsys, tokenizer=tokenizer) == f"{expected}\n"


def test_the_snippet_of_a_writers_card_runs_and_stays_when_the_card_is_written_again(tmp_path, capsys):
    llama().save_pretrained(tmp_path / "base")
    model = named(randomised(adapted()).eval(), str(tmp_path / "base"))
    expected = write(model, byte_tokenizer(), ["your prompt, or nothing"], "loud", samples=3)
    assert run_snippet(model, tmp_path, capsys, recipe={"task": "generation"}) == f"{expected}\n"
    again = str(write_card(model, tmp_path / "adapter"))
    assert "print(write(model, tokenizer" in again
    assert "print(transfer(" not in again


def test_the_class_of_the_backbone_fits_the_task(tmp_path):
    model, lora = adapted(t5(), task_type="SEQ_2_SEQ_LM"), {"loud": "lora/loud", "calm": "lora/calm"}
    text = str(write_card(named(model, "org/tiny"), tmp_path, repo="me/house", lora=lora))
    assert 'AutoModelForSeq2SeqLM.from_pretrained("org/tiny")' in text
    assert 'PeftModel.from_pretrained(backbone, "me/house", subfolder="lora/loud")' in text
    assert "each style (`lora/loud`, `lora/calm`) is a plain LoRA" in text


def test_many_styles_are_cut_and_odd_names_are_quoted(tmp_path):
    names = ["it's", *(f"style {i}" for i in range(60))]
    text = str(write_card(adapted(styles=names), tmp_path))
    assert "61 styles: it's, style 0, " in text
    assert "style 48, ..." in text
    assert "style 49" not in text.split("## Use it", maxsplit=1)[0]
    assert """bank["it's"]""" in text
    assert """--style 'it'"'"'s' OUT""" in text


def test_trainer_writes_this_card_and_leaves_one_that_is_there(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.save_model()
    assert has_card(tmp_path)
    written = str(write_card(trainer.style_model, tmp_path, numbers="| measured |"))
    trainer.save_model()
    trainer.create_model_card()
    assert (tmp_path / "README.md").read_text("utf-8") == written


def test_a_card_written_again_keeps_what_was_measured_and_added_by_hand(tmp_path):
    model = named(adapted(), "org/tiny")
    first = str(write_card(model, tmp_path, repo="me/house", numbers="| 45.6 |", recipe=RECIPE))
    (tmp_path / "README.md").write_text(first + "\n\n## By hand\n\n{{ braces }}\n", "utf-8")
    kept = str(write_card(named(model, "org/large"), tmp_path))
    assert kept == first.replace("org/tiny", "org/large") + "\n\n## By hand\n\n{{ braces }}"
    assert str(write_card(model, tmp_path, repo="me/other")) == kept.replace("me/house", "me/other")
    assert "| 45.6 |" not in str(write_card(model, tmp_path, recipe=RECIPE))


def test_peft_saves_this_card_for_style_adapters_and_its_own_for_others(tmp_path):
    llama().save_pretrained(tmp_path / "base")
    named(adapted(), str(tmp_path / "base")).save_pretrained(tmp_path / "ours")
    get_peft_model(llama(), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "lora")
    assert has_card(tmp_path / "ours")
    assert str(tmp_path) not in (tmp_path / "ours" / "README.md").read_text("utf-8")
    assert not has_card(tmp_path / "lora")


def test_no_token_is_in_the_card(tmp_path):
    recipe = {"hub_token": "hf_secret", "novel_token_weight": 2.0}
    text = str(write_card(adapted(), tmp_path, recipe=recipe))
    assert "hf_secret" not in text
    assert "- `novel_token_weight`: 2.0" in text


@pytest.mark.parametrize("base", ["/home/me/tiny", "a/b/c", "./tiny", "two words"])
def test_what_is_no_hub_id_is_no_base(base):
    assert hub_base(base) is None
    assert hub_base("org/tiny") == "org/tiny"
