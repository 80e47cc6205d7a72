"""A recipe carried out: rows of every kind of file, the backbone it builds, equal runs."""

from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file
from training_fixtures import (
    bert_tagger,
    byte_tokenizer,
    llama,
    llama_classifier,
    llama_tagger,
    masked_bert,
    save_backbone,
    t5,
    toy_rows,
)

from style_adapter.recipe import Recipe, load_recipe
from style_adapter.tasks import TASKS
from style_adapter.training import build, load_rows, run

pytestmark = pytest.mark.usefixtures("no_cache_at_home")


def recipe(folder, backbone, **options) -> Recipe:
    """A recipe on `backbone`, saved into `folder`."""
    save_backbone(folder, backbone)
    toy_rows().to_json(folder / "rows.jsonl")
    given = {"model_name_or_path": str(folder / "base"), "train_file": str(folder / "rows.jsonl"), "r": 4}
    given |= {"styles": ["loud", "calm"], "output_dir": str(folder / "out"), "report_to": "none", "use_cpu": True}
    given |= {"max_steps": 2, "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False}
    given |= {"discriminator_blocks": 1, "adversary_start": 0}
    return load_recipe(None, given | options)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_rows_of_every_kind_of_file_are_the_rows_written(tmp_path, kind):
    path = str(tmp_path / f"rows.{kind}")
    write = {"csv": lambda: toy_rows().to_csv(path, index=False), "parquet": lambda: toy_rows().to_parquet(path)}
    write.get(kind, lambda: toy_rows().to_json(path))()
    assert load_rows(path).to_list() == toy_rows().to_list()


def test_a_file_of_another_kind_and_a_missing_one_are_named(tmp_path):
    (tmp_path / "rows.txt").touch()
    with pytest.raises(ValueError, match=r"rows.txt must end in one of .jsonl, .json, .csv, .parquet; rename or"):
        load_rows(str(tmp_path / "rows.txt"))
    with pytest.raises(FileNotFoundError, match=r"gone.csv does not exist; give the path of a .jsonl, .json, .csv"):
        load_rows(str(tmp_path / "gone.csv"))


def test_equal_recipes_give_equal_bits_and_another_seed_does_not(tmp_path):
    def trained(name: str, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(len(name))  # what happened before must not matter
        folder = run(recipe(tmp_path, llama(), seed=seed, output_dir=str(tmp_path / name)))
        files = [load_file(f"{folder}/{file}.safetensors") for file in ("adapter_model", "discriminator")]
        return files[0] | files[1]

    first, again, other = trained("first", 1), trained("once more", 1), trained("other", 2)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items() if "style_adapter_A" in name)
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items() if name.startswith("discr"))


def test_the_backbone_gets_a_class_for_each_label_and_a_padding_token(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 3, 3]})
    model, _ = build(recipe(tmp_path, llama_classifier(pad_token_id=None), task="classification"), rows)
    assert model.config.num_labels == 4
    assert model.config.pad_token_id == byte_tokenizer().pad_token_id == 0
    assert model.peft_config["default"].task_type == "SEQ_CLS"


@pytest.mark.parametrize("backbone", [bert_tagger, llama_tagger])
def test_the_backbone_gets_a_class_for_each_label_of_a_word(tmp_path, backbone):
    rows = datasets.Dataset.from_dict({"text": ["a b", "c"], "label": [[0, 5], [-100]]})
    model, _ = build(recipe(tmp_path, backbone(), task="token_classification"), rows)
    assert model.config.num_labels == 6
    assert model.peft_config["default"].task_type == "TOKEN_CLS"


def test_a_masked_language_model_has_no_task_type_of_pefts(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a b", "c"]})
    model, _ = build(recipe(tmp_path, masked_bert(), task="masked_lm"), rows)
    assert type(model.get_base_model()).__name__ == "BertForMaskedLM"
    assert model.peft_config["default"].task_type is None
    with pytest.raises(ValueError, match=r"task_type='FEATURE_EXTRACTION' must be None for task='masked_lm'; leave it"):
        build(recipe(tmp_path, masked_bert(), task="masked_lm", task_type="FEATURE_EXTRACTION"), rows)


@pytest.mark.parametrize(("backbone", "task_type"), [(llama, "CAUSAL_LM"), (t5, "SEQ_2_SEQ_LM")])
def test_generation_keeps_the_head_of_the_language_model(tmp_path, backbone, task_type):
    rows = datasets.Dataset.from_dict({"text": ["a b", "c"], "style": ["loud", "calm"]})
    model, _ = build(recipe(tmp_path, backbone(), task="generation", task_type=task_type), rows)
    assert model.peft_config["default"].task_type == task_type


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "examples/recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_recipes_are_read_and_are_of_the_task_they_are_named_after(path):
    found = load_recipe(path, {"train_file": "rows.jsonl", "use_cpu": True, "report_to": "none", "bf16": False})
    assert found.training.task == path.stem
    assert found.training.task in TASKS


def test_the_adapter_is_fresh_on_the_backbone_as_it_was_saved(tmp_path):
    model, tokenizer = build(recipe(tmp_path, llama(), dtype="float32"), toy_rows())
    ids = tokenizer("ab", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids, styles="calm").logits, llama()(ids).logits)
    assert model.peft_config["default"].task_type == "CAUSAL_LM"
