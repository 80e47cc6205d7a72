"""Files of other styles than the model's, judged by a model that has just the file's own: rows are found by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import STYLES, adapted, llama, token_ids
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from style_adapter import StyleAdapterConfig
from style_adapter.model.evolve import FORMAT_KEY, described, description, gate_by_name

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
KEY = f"base_model.model.{FORMAT_KEY}"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A saved adapter of the three styles."""
    adapted(llama()).save_pretrained(tmp_path)
    return tmp_path


def config(styles: list[str], **options) -> StyleAdapterConfig:
    """The config of the saved adapter with other styles."""
    return StyleAdapterConfig(**{"styles": styles, "r": 4, "alpha": 8.0} | options)


def loaded(folder: Path, styles: list[str], **options) -> PeftModel:
    """The saved adapter in a model of `styles`."""
    return PeftModel.from_pretrained(llama(), folder, config=config(styles), **options).eval()


def logits(model, style) -> Tensor:
    """What a model says of two rows."""
    with torch.no_grad():
        return model(input_ids=token_ids(2), styles=style).logits


def gates(model) -> list[Tensor]:
    """The gate tables of a model, layer by layer."""
    return [p for name, p in model.named_parameters() if "style_adapter_gate" in name]


def change(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    """Edits the tensors of a saved adapter."""
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("lean", [False, True], ids=["plain", "low_cpu_mem_usage"])
@pytest.mark.parametrize(
    "styles",
    [["kjv", "pirate", "modern"], [*STYLES, "poem"], ["poem", "pirate", "news", "modern", "kjv"]],
    ids=["another order", "one more", "both"],
)
def test_rows_are_found_by_name_and_new_ones_start_at_one(folder, styles, lean):
    model, wanted = loaded(folder, styles, low_cpu_mem_usage=lean), adapted(llama())
    for style in STYLES:
        assert torch.equal(logits(model, style), logits(wanted, style))
    assert not torch.equal(logits(wanted, "kjv"), logits(wanted, "modern"))  # an order that is lost would be seen
    for table in gates(model):
        for row, name in enumerate(styles):
            assert name in STYLES or torch.equal(table[row], torch.ones(4))


def test_a_new_style_keeps_the_row_it_has_in_the_model(folder):
    model = get_peft_model(llama(), config([*STYLES, "poem"], init_weights=False))
    before = [table[3].clone() for table in gates(model)]
    set_peft_model_state_dict(model, load_file(folder / WEIGHTS))
    assert all(torch.equal(table[3], row) for table, row in zip(gates(model), before, strict=True))
    assert torch.equal(logits(model.eval(), "pirate"), logits(adapted(llama()), "pirate"))


@pytest.mark.parametrize("mark", ["", "base_model.model."], ids=["PEFT's", "transformers'"])
def test_a_model_without_the_tuner_finds_its_rows_too(folder, mark):
    tensors = {
        mark + key.removeprefix("base_model.model."): tensor for key, tensor in load_file(folder / WEIGHTS).items()
    }
    model = inject_adapter_in_model(config(["poem", *reversed(STYLES)]), llama(), "other")
    result = set_peft_model_state_dict(model, tensors, adapter_name="other")
    assert not result.unexpected_keys
    assert torch.equal(logits(model.eval(), "kjv"), logits(adapted(llama()), "kjv"))


def test_a_second_save_knows_the_new_names(folder, tmp_path):
    loaded(folder, ["poem", *STYLES]).save_pretrained(tmp_path / "again")
    written = description(load_file(tmp_path / "again" / WEIGHTS)[KEY])
    assert written == {"format_version": 1, "styles": ["poem", *STYLES]}
    again = PeftModel.from_pretrained(llama(), tmp_path / "again").eval()
    assert list(again.base_model.styles) == ["poem", *STYLES]
    assert torch.equal(logits(again, "kjv"), logits(adapted(llama()), "kjv"))


def test_each_of_several_adapters_keeps_its_own_names():
    model = adapted(llama())
    model.add_adapter("second", config(["one", "två"]))
    for adapter, names in (("default", STYLES), ("second", ["one", "två"])):
        tensors = get_peft_model_state_dict(model, adapter_name=adapter)
        assert description(tensors[KEY])["styles"] == names


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float16, torch.float32])
def test_names_outlive_a_cast_of_the_whole_file(dtype):
    names = ["modern", "naïve", "日本", 'quo"te', "\x7f"]
    assert description(described({}, names)[FORMAT_KEY].to(dtype))["styles"] == names


def test_styles_that_would_be_lost_are_named(folder):
    text = r"styles=\['kjv', 'poem'\] must hold every style of the file, and \['modern', 'pirate'\] would be lost; add"
    with pytest.raises(ValueError, match=text):
        loaded(folder, ["kjv", "poem"])


@pytest.mark.parametrize(
    "options", [{"style_dim": 2}, {"noise_dim": 3}, {"target_modules": ["q_proj", "v_proj", "o_proj"]}], ids=str
)
def test_tensors_that_would_be_lost_are_refused(tmp_path, options):
    adapted(llama(), **options).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"place for each of the file's tensors, and for \d+ it has none; compare tar"):
        loaded(tmp_path, STYLES)


def test_an_old_file_without_names_loads_as_it_stands_where_the_rows_agree(folder):
    change(folder, lambda tensors: tensors.pop(KEY))
    wanted = adapted(llama())
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), folder).eval(), "kjv"), logits(wanted, "kjv"))
    renamed = loaded(folder, ["a", "b", "c"])
    assert torch.equal(logits(renamed, "b"), logits(wanted, "kjv"))
    with pytest.raises(
        ValueError, match=r"3 rows must be 4, one for each of the model's styles, for its file names none"
    ):
        loaded(folder, [*STYLES, "poem"])


def test_a_file_whose_rows_are_not_its_names_is_refused(folder):
    change(folder, lambda tensors: tensors.update(described(tensors, STYLES[:2])))
    with pytest.raises(ValueError, match=r"gate.*3 rows must be 2, one for each of the styles that its file names"):
        loaded(folder, STYLES)


def test_a_description_above_all_other_keys_is_read_too(folder):
    change(folder, lambda tensors: tensors.update({FORMAT_KEY: tensors.pop(KEY)}))
    model = loaded(folder, ["poem", *reversed(STYLES)])
    assert torch.equal(logits(model, "pirate"), logits(adapted(llama()), "pirate"))


@pytest.mark.parametrize("styles", [list(reversed(STYLES)), ["poem", *STYLES]], ids=str)
def test_transformers_reads_no_row_into_another_style(folder, styles):
    backbone = llama()
    backbone.load_adapter(str(folder), peft_config=config(STYLES))
    assert torch.equal(logits(backbone.eval(), "pirate"), logits(adapted(llama()), "pirate"))
    for given in ({"peft_model_id": str(folder)}, {"adapter_state_dict": load_file(folder / WEIGHTS)}):
        with pytest.raises(ValueError, match=r"those of the file in their order, \['modern', .* finds rows by name"):
            llama().load_adapter(peft_config=config(styles), **given)


def test_a_newer_format_is_refused_with_both_versions_and_the_remedy(folder):
    text = r"format_version=2, which must be <= 1 here; a newer style_adapter wrote it: pip install --upgrade style_ada"
    tensors = load_file(folder / WEIGHTS)
    tensors[KEY] = torch.tensor(list(b'{"format_version": 2, "pages": []}'), dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"the weights' file has {text}"):
        set_peft_model_state_dict(get_peft_model(llama(), config(STYLES)), tensors)
    written = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(written | {"format_version": 2, "noise_type": "newer than this release"}))
    with pytest.raises(ValueError, match=f"the adapter's config has {text}"):
        PeftModel.from_pretrained(llama(), folder)


def test_a_config_is_saved_in_the_present_format(tmp_path):
    StyleAdapterConfig(format_version=0).save_pretrained(tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["format_version"] == 1


def test_rows_by_name_equal_rows_taken_one_by_one():
    table, start = torch.randn(3, 4), torch.randn(5, 4)
    rows = torch.tensor([2, -1, 0, 1, -1])
    wanted = torch.stack([start[i] if row < 0 else table[row] for i, row in enumerate(rows.tolist())])
    assert torch.equal(gate_by_name(table, rows, start), wanted)
    assert gate_by_name(table.bfloat16(), rows, start).dtype == torch.bfloat16
