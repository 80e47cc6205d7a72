"""One style as a plain LoRA, judged by stock PEFT: in a process that cannot import this package, and in this one."""

import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora.conversion import convert_to_lora
from safetensors.torch import load_file
from torch import Tensor
from training_fixtures import adapted, gpt2, llama, randomised, t5

from style_adapter import Style
from style_adapter.export import export_lora

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
MIXTURE = Style({"loud": 0.7, "calm": -1.5})
CASES = {
    "llama": (llama, {"alpha": 20.0}, "calm"),
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"]}, "loud"),
    "mixture": (llama, {"use_rslora": True}, MIXTURE),
    "ranks": (llama, {"rank_pattern": {"q_proj": 2, "layers.1.*v_proj": 3}, "alpha_pattern": {"q_proj": 5.0}}, MIXTURE),
    "few": (llama, {"target_modules": ["q_proj"], "layers_to_transform": [1]}, "calm"),
}


def case(name: str) -> tuple[PeftModel, object, object]:
    """A random adapter, the style to export, and the plain backbone."""
    backbone, options, style = CASES[name]
    return randomised(adapted(backbone(), **options)).eval(), style, backbone().eval()


def logits(model, **styles) -> Tensor:
    """What a model says of the same tokens."""
    with torch.no_grad():
        return model(input_ids=IDS, **styles).logits


# Stock PEFT alone: the package is not importable there, by name or from the folder of the sources.
_STOCK = """
import sys
sys.modules["style_adapter"] = None
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

ids, found = torch.tensor({ids}), {{}}
for name in {names}:
    folder = "{root}/" + name
    backbone = AutoModelForCausalLM.from_pretrained(folder + "/base").eval()
    model = PeftModel.from_pretrained(backbone, folder + "/lora")
    assert type(model.base_model).__name__ == "LoraModel"
    with torch.no_grad():
        found[name] = model(input_ids=ids).logits
    with torch.no_grad(), model.disable_adapter():
        found[name + " without"] = model(input_ids=ids).logits
save_file(found, "{root}/logits.safetensors")
"""


def test_export_loads_in_stock_peft_that_never_saw_this_package(tmp_path):
    expected = {}
    for name in CASES:
        model, style, backbone = case(name)
        export_lora(model, tmp_path / name / "lora", style=style)
        backbone.save_pretrained(tmp_path / name / "base")
        expected[name], expected[f"{name} without"] = logits(model, styles=style), logits(backbone)
    script = _STOCK.format(ids=IDS.tolist(), names=list(CASES), root=tmp_path)
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=tmp_path, timeout=300)
    found = load_file(tmp_path / "logits.safetensors")
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, atol=1e-5, rtol=1e-5)
    for name in CASES:
        assert (found[name] - found[f"{name} without"]).abs().max() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_export_gives_the_same_model_in_this_process(tmp_path, name):
    model, style, backbone = case(name)
    before = logits(model, styles=style)
    config = export_lora(model, tmp_path, style=style)
    assert torch.equal(logits(model, styles=style), before)  # the adapter is left as it was
    loaded = PeftModel.from_pretrained(backbone, tmp_path).eval()
    torch.testing.assert_close(logits(loaded), before, atol=1e-5, rtol=1e-5)
    written = json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))
    assert written["peft_type"] == "LORA" == config.peft_type.value
    assert (written["r"], written["lora_alpha"]) == (8, 8)
    for layer in (m for m in loaded.modules() if hasattr(m, "lora_A")):
        assert layer.scaling["default"] == 1.0


def test_the_default_style_is_exported_where_none_is_named(tmp_path):
    model, _, backbone = case("llama")
    export_lora(model, tmp_path)
    loaded = PeftModel.from_pretrained(backbone, tmp_path).eval()
    torch.testing.assert_close(logits(loaded), logits(model, styles="loud"), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(loaded), logits(model, styles="calm"), atol=1e-3)


def test_an_encoder_decoder_is_exported_too(tmp_path):
    model = randomised(adapted(t5(), task_type="SEQ_2_SEQ_LM")).eval()
    export_lora(model, tmp_path, style="calm")
    loaded = PeftModel.from_pretrained(t5().eval(), tmp_path).eval()
    inputs = {"input_ids": IDS, "labels": IDS}
    with torch.no_grad():
        found, wanted = loaded(**inputs).logits, model(**inputs, styles="calm").logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "mixture"])
def test_export_equals_pefts_own_conversion(tmp_path, name):
    model, style, backbone = case(name)
    with model.styled(style):
        config, weights = convert_to_lora(model, 8)
    converted = get_peft_model(backbone, config)
    set_peft_model_state_dict(converted, weights)
    export_lora(model, tmp_path, style=style)
    exported = PeftModel.from_pretrained(CASES[name][0]().eval(), tmp_path)
    torch.testing.assert_close(logits(exported.eval()), logits(converted.eval()), atol=1e-4, rtol=1e-4)


def test_several_styles_at_once_are_refused(tmp_path):
    model, *_ = case("llama")
    with pytest.raises(ValueError, match="2 styles must be 1 to merge or export; choose one style or mixture"):
        export_lora(model, tmp_path, style=["loud", "calm"])
    with pytest.raises(ValueError, match="styles='laud' must be one of the adapter's styles: loud, calm"):
        export_lora(model, tmp_path, style="laud")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"modules_to_save": ["norm"]}, {"bias": "all"}])
def test_what_a_lora_would_lose_is_refused(tmp_path, options):
    model = adapted(llama(tie_word_embeddings=False), **options)
    with pytest.raises(ValueError, match=r"must be 'none' and None to export a plain LoRA.* use merge_and_unload"):
        export_lora(model, tmp_path)


def test_an_adapter_of_another_method_is_refused(tmp_path):
    model = get_peft_model(llama(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match=r"adapter_name='default' must be a style adapter, found .*LORA"):
        export_lora(model, tmp_path)
