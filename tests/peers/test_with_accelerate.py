"""accelerate's offloading: blocks on the disk, against the same model whole."""

import pytest
import torch
from accelerate import dispatch_model
from conftest import adapted, llama, token_ids
from peft import PeftModel
from transformers import AutoModelForCausalLM

# PEFT fills the adapter twice: at first on the meta device, then from its own copy on the disk
pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter in the checkpoint:UserWarning")

MIXED = ["modern", "kjv", "pirate"]
ON_CPU = ["model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head"]
PLACES = {**dict.fromkeys(ON_CPU, "cpu"), "model.layers.1": "disk"}
INSIDE_PEFT = {f"base_model.model.{name}": place for name, place in PLACES.items()}


def offloaded(model, text):
    """Names of parameters with `text` in them whose values are not in memory."""
    return [name for name, p in model.named_parameters() if p.is_meta and text in name]


@pytest.fixture(autouse=True)
def _peft_writes_the_parts_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def whole():
    return adapted(llama(), target_modules="all-linear", task_type="CAUSAL_LM")


def loaded(whole, folder):
    """The same adapter read onto the same backbone, whose second block is on the disk."""
    whole.save_pretrained(folder / "adapter")
    llama().save_pretrained(folder / "backbone")
    backbone = AutoModelForCausalLM.from_pretrained(folder / "backbone", device_map=PLACES, offload_folder=folder / "a")
    options = {"device_map": INSIDE_PEFT, "offload_folder": folder / "b"}
    return PeftModel.from_pretrained(backbone, folder / "adapter", **options).eval()


def dispatched(whole, folder):
    """The adapted model itself, its second block moved to the disk."""
    copy = adapted(llama(), target_modules="all-linear", task_type="CAUSAL_LM")
    return dispatch_model(copy, INSIDE_PEFT, offload_dir=folder / "c", main_device="cpu")


@pytest.mark.parametrize("make", [loaded, dispatched])
def test_a_block_on_the_disk_gives_the_outputs_of_the_whole_model_in_each_rows_style(make, whole, tmp_path):
    model, ids = make(whole, tmp_path), token_ids(3)
    assert offloaded(model, "base_layer")
    assert offloaded(model, "style_adapter_gate")
    assert all("layers.1." in name for name in offloaded(model, ""))
    with torch.no_grad():
        assert torch.equal(model(ids, styles=MIXED).logits, whole(ids, styles=MIXED).logits)
    options = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(**options, styles=MIXED), whole.generate(**options, styles=MIXED))
    with model.styled("kjv"):
        assert torch.equal(model(ids).logits, whole(ids, styles="kjv").logits)
    assert offloaded(model, "style_adapter_gate")
