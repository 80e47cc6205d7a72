"""PEFT's own corners: before our import, mixed models, hot-swapping; what is refused says so, and another way works."""

import json
import os
import subprocess
import sys

import peft
import pytest
import torch
from conftest import adapted, llama, randomise, token_ids
from peft.utils.hotswap import hotswap_adapter

from style_adapter import StyleAdapterConfig

UNREGISTERED = """
import sys
from peft import PeftConfig

folder = sys.argv[1]
try:
    PeftConfig.from_pretrained(folder)
    print("loaded without us")
except KeyError as error:
    print(error)
import style_adapter
print(PeftConfig.from_pretrained(folder).styles)
"""


def test_peft_raises_a_key_error_until_style_adapter_is_imported(tmp_path):
    adapted(llama()).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))["peft_type"] == "STYLE_ADAPTER"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-c", UNREGISTERED, str(tmp_path)]
    said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["'STYLE_ADAPTER'", "['modern', 'kjv', 'pirate']"]


def test_a_mixed_model_is_refused_by_name():
    config = StyleAdapterConfig(styles=["modern", "kjv"], target_modules="all-linear")
    with pytest.raises(ValueError, match=r"'STYLE_ADAPTER' is not compatible with the `PeftMixedModel`"):
        peft.get_peft_model(llama(), config, mixed=True)
    mixed = peft.get_peft_model(llama(), peft.LoraConfig(target_modules=["q_proj"]), mixed=True)
    with pytest.raises(ValueError, match=r"'STYLE_ADAPTER' is not compatible with the `PeftMixedModel`"):
        mixed.add_adapter("styles", config)


@pytest.fixture
def other(tmp_path):
    """Another adapter of the same styles, saved, and what it says in one style a row."""
    model = adapted(llama(), seed=1)
    model.save_pretrained(tmp_path)
    return tmp_path, outputs(model)


def outputs(model):
    with torch.no_grad():
        return model(token_ids(3), styles=["modern", "kjv", "pirate"]).logits


def test_hotswapping_is_refused_and_loading_under_the_same_name_replaces_the_weights(other):
    folder, wanted = other
    model = adapted(llama())
    with pytest.raises(ValueError, match=r"supports LORA but STYLE_ADAPTER was passed. model.load_adapter\(folder, "):
        hotswap_adapter(model, str(folder), adapter_name="default")
    before = outputs(model)
    model.load_adapter(folder, adapter_name="default")
    assert not torch.equal(before, wanted)
    assert torch.equal(outputs(model), wanted)


def test_a_second_adapter_is_switched_to_without_losing_the_first(other):
    folder, wanted = other
    model = adapted(llama())
    before = outputs(model)
    model.load_adapter(folder, adapter_name="other")
    model.set_adapter("other")
    assert torch.equal(outputs(model), wanted)
    model.set_adapter("default")
    assert torch.equal(outputs(model), before)


def test_transformers_hotswap_is_refused_and_its_load_adapter_takes_the_styles(other):
    folder, wanted = other
    model = llama()
    model.add_adapter(StyleAdapterConfig(styles=["modern", "kjv", "pirate"], r=4, alpha=8.0))
    randomise(model)
    with pytest.raises(ValueError, match="Hotswapping is currently only supported for LoRA"):
        model.load_adapter(str(folder), adapter_name="default", hotswap=True)
    fresh = llama()
    fresh.load_adapter(str(folder))
    assert torch.equal(outputs(fresh), wanted)


def test_a_lora_is_swapped_in_place_as_before(tmp_path):
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    wanted = peft.get_peft_model(llama(), config).eval()
    wanted.save_pretrained(tmp_path)
    model = peft.get_peft_model(llama(), config).eval()
    hotswap_adapter(model, str(tmp_path), adapter_name="default")
    assert torch.equal(model(token_ids(3)).logits, wanted(token_ids(3)).logits)


def test_weighted_adapters_are_refused_with_the_exact_ways():
    with pytest.raises(ValueError, match=r"must be called on LoRAs; styles mix exactly .* from_loras takes LoRAs in"):
        adapted(llama()).add_weighted_adapter(["default"], [0.5], "half")


def test_ephemeral_offload_is_of_no_use_here_and_says_so(other):
    folder, wanted = other  # LoRA has it for DoRA, which computes with the base weight while it is made
    with pytest.warns(UserWarning, match="Ephemeral GPU offloading is not supported for this model. Ignoring."):
        model = peft.PeftModel.from_pretrained(llama(), folder, ephemeral_gpu_offload=True)
    assert torch.equal(outputs(model.eval()), wanted)
