"""The card: read back by the hub's own client, its snippet run, no path of this machine in it."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from training_fixtures import (
    adapted,
    byte_tokenizer,
    llama,
    llama_classifier,
    make_trainer,
    randomised,
    t5,
    trained_toy,
)

from style_adapter import StyleAdapterConfig
from style_adapter.card import has_card, write_card

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
    assert 'AutoPeftModelForCausalLM.from_pretrained("me/house")' in text
    assert "| a table |" in text
    assert "2 styles: loud, calm" in text


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


def test_the_snippet_of_the_card_runs(tmp_path, capsys):
    trainer = trained_toy(tmp_path)
    llama().save_pretrained(tmp_path / "base")
    model = named(trainer.style_model, str(tmp_path / "base"))
    model.save_pretrained(tmp_path / "adapter")
    byte_tokenizer().save_pretrained(tmp_path / "adapter")
    named(model, None)
    text = str(write_card(model, tmp_path / "adapter", repo=str(tmp_path / "adapter")))
    snippet = text.split("```python\n")[1].split("```", maxsplit=1)[0].replace("your text", "ab")
    capsys.readouterr()
    exec(snippet, {})
    first, _ = capsys.readouterr().out.splitlines()
    assert first == "['AB!']"


def test_the_snippet_of_a_classifiers_card_runs(tmp_path, capsys):
    llama_classifier(num_labels=3, pad_token_id=None).save_pretrained(tmp_path / "base")
    backbone = llama_classifier(num_labels=3)
    model = named(randomised(adapted(backbone, task_type="SEQ_CLS")), str(tmp_path / "base"))
    model.save_pretrained(tmp_path / "adapter")
    byte_tokenizer().save_pretrained(tmp_path / "adapter")
    text = str(write_card(model, tmp_path / "adapter", repo=str(tmp_path / "adapter")))
    exec(text.split("```python\n")[1].split("```", maxsplit=1)[0], {})
    assert capsys.readouterr().out.strip() in ("[0]", "[1]", "[2]")


def test_the_class_of_the_snippet_fits_the_task(tmp_path):
    assert "AutoPeftModelForSeq2SeqLM" in str(write_card(adapted(t5(), task_type="SEQ_2_SEQ_LM"), tmp_path))


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
    assert not has_card(tmp_path)  # PEFT's own
    trainer.create_model_card()
    assert has_card(tmp_path)
    written = str(write_card(trainer.style_model, tmp_path, numbers="| measured |"))
    trainer.create_model_card()
    assert (tmp_path / "README.md").read_text("utf-8") == written
    assert isinstance(trainer.style_model.peft_config["default"], StyleAdapterConfig)
