"""One style as a plain LoRA, judged by stock PEFT: in a process that cannot import this package, and in this one."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import bert
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora.conversion import convert_to_lora, save_as_lora
from safetensors.torch import load_file
from torch import Tensor, nn
from training_fixtures import adapted, gpt2, llama, randomised, t5

from style_adapter import Style, from_loras
from style_adapter.export import export_lora, vllm_command

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


def test_export_of_a_strength_by_block_is_what_styled_runs(tmp_path):
    model, backbone = randomised(adapted(llama())).eval(), llama().eval()
    strength = {"layers.0-0": 0.25, "q_proj": -2.0}
    with model.styled("loud", strength=strength):
        expected = logits(model)
    assert not torch.allclose(expected, logits(model, styles="loud"), atol=1e-3)
    export_lora(model, tmp_path, style="loud", strength=strength)
    found = logits(PeftModel.from_pretrained(backbone, tmp_path))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


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


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"modules_to_save": ["norm"]},
            r"must be None to export .* with include_modules_to_save=True, .* or use merge_",
        ),
        (
            {"bias": "all"},
            r"bias='all' must be 'none' to export a plain LoRA: it would lose them; use merge_and_unload",
        ),
        (
            {"trainable": "all"},
            r"trainable='all' must be 'adapter' to export a plain LoRA: it would lose them; use mer",
        ),
    ],
    ids=str,
)
def test_what_a_lora_would_lose_is_refused(tmp_path, options, text):
    model = adapted(llama(tie_word_embeddings=False), **options)
    with pytest.raises(ValueError, match=text):
        export_lora(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_modules_trained_whole_go_along_where_that_is_asked_for(tmp_path):
    model = randomised(adapted(bert(), task_type="SEQ_CLS", modules_to_save=["pooler"])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.normal_(std=0.3)
    with pytest.raises(ValueError, match=r"modules_to_save=\['pooler', 'classifier', 'score'\] must be None to export"):
        export_lora(model, tmp_path)
    for style in ("loud", MIXTURE):
        export_lora(model, tmp_path, style=style, include_modules_to_save=True)
        loaded = PeftModel.from_pretrained(bert(), tmp_path).eval()
        torch.testing.assert_close(logits(loaded), logits(model, styles=style), atol=1e-5, rtol=1e-5)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert not any("style_adapter" in key for key in tensors)
    whole = [key for key in tensors if "lora_" not in key]
    assert sorted(key.split(".")[-2] for key in whole) == ["classifier", "classifier", "dense", "dense"]
    for key in whole:  # and without them it is another model
        tensors[key] = torch.zeros_like(tensors[key])
    set_peft_model_state_dict(loaded, tensors)
    assert (logits(loaded) - logits(model, styles=style)).abs().max() > 0.1


class Layers(nn.Module):
    """An embedding, a convolution and two linear layers, the name of one the end of the other's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.conv = nn.Embedding(16, 8), nn.Conv1d(8, 8, 3, padding=1)
        self.lin, self.inner = nn.Linear(8, 8), nn.ModuleDict({"lin": nn.Linear(8, 8)})
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.lin(self.conv(self.embed(ids).transpose(1, 2)).transpose(1, 2))
        return self.inner["lin"](self.attention(x, x, x)[0])


def test_embeddings_and_convolutions_are_exported_too(tmp_path):
    options = {"target_modules": "embed|conv|lin", "rank_pattern": {"^lin": 5}, "task_type": None}
    model = randomised(adapted(Layers(), **options)).eval()
    with torch.no_grad(), model.styled(MIXTURE):
        wanted = model(IDS)
        export_lora(model, tmp_path, style=MIXTURE)
        loaded = PeftModel.from_pretrained(Layers(), tmp_path).eval()
        torch.testing.assert_close(loaded(IDS), wanted, atol=1e-5, rtol=1e-5)
    assert isinstance(loaded.base_model.model.inner["lin"], nn.Linear)  # the name alone would match it too
    assert (wanted - Layers()(IDS)).abs().max() > 0.1


def test_a_layer_without_a_counterpart_in_lora_is_refused(tmp_path):
    model = adapted(Layers(), target_modules=["attention"], task_type=None)
    with pytest.raises(
        ValueError, match=r"attention: a LoRA must be on .*, found MultiheadAttention; use merge_and_un"
    ):
        export_lora(model, tmp_path)


# For vLLM


def read_by_vllms_rules(folder: Path, backbone: nn.Module) -> dict[str, Tensor]:
    """{module: dW} of a folder; refuses what vLLM refuses.

    The rules are those of vllm/lora/peft_helper.py, utils.py and lora_model.py: required and refused fields of the
    config, the two names that a weight may have, modules by the last part of their names among the Linear ones, and one
    scaling for all of them, whatever `alpha_pattern` says.
    """
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert config["peft_type"] == "LORA"
    assert {"r", "lora_alpha", "target_modules"} <= config.keys()
    assert config["bias"] == "none"
    assert not config["modules_to_save"]
    assert not config["use_dora"]
    scaling = config["lora_alpha"] / (math.sqrt(config["r"]) if config["use_rslora"] else config["r"])
    linear = {name.rpartition(".")[2] for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
    assert {name.rpartition(".")[2] for name in config["target_modules"]} <= linear
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        base, model, *module, factor, weight = key.split(".")
        assert (base, model, weight) == ("base_model", "model", "weight")
        assert factor in ("lora_A", "lora_B")
        assert module[-1] in linear
        factors.setdefault(".".join(module), {})[factor] = tensor
    for pair in factors.values():
        assert pair["lora_A"].shape[0] == pair["lora_B"].shape[1] <= config["r"]
    return {module: scaling * pair["lora_B"] @ pair["lora_A"] for module, pair in factors.items()}


@pytest.mark.parametrize("name", ["llama", "mixture", "ranks", "few"])
def test_what_vllm_makes_of_a_folder_is_the_style(tmp_path, name):
    model, style, backbone = case(name)
    export_lora(model, tmp_path, style=style)
    with torch.no_grad():
        for module, delta in read_by_vllms_rules(tmp_path, backbone).items():
            backbone.get_submodule(module).weight += delta
    torch.testing.assert_close(logits(backbone), logits(model, styles=style), atol=1e-5, rtol=1e-5)
    assert (logits(backbone) - logits(model, styles="calm" if name == "mixture" else "loud")).abs().max() > 0.01


@pytest.mark.parametrize(("rank", "option"), [(16, ""), (17, "--max-lora-rank 32 "), (257, "--max-lora-rank 320 ")])
def test_the_line_for_vllm_names_backbone_folder_and_a_rank_that_it_knows(tmp_path, rank, option):
    model = adapted(llama(), r=rank)
    lora = export_lora(model, tmp_path / "kjv")
    folder = f"--lora-modules kjv={tmp_path / 'kjv'}"
    assert vllm_command(model, lora, tmp_path / "kjv", base="me/llama") == (
        f"vllm serve me/llama --enable-lora {option}{folder}"
    )


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: adapted(llama(), r=513), "LoRAs of rank 513, above 512"),
        (
            lambda: adapted(gpt2(), target_modules=["c_attn"]),
            "LoRAs of anything but Linear layers, such as transformer",
        ),
        (
            lambda: adapted(llama(tie_word_embeddings=False), target_modules=["embed_tokens", "q_proj"]),
            "anything but Linear .* model.embed_tok",
        ),
        (lambda: adapted(t5(), task_type="SEQ_2_SEQ_LM"), "LoRAs of encoder-decoders"),
    ],
    ids=["rank", "conv1d", "embedding", "t5"],
)
def test_a_folder_that_vllm_would_not_read_has_no_line(tmp_path, model, text):
    adapter = model()
    lora = export_lora(adapter, tmp_path)
    with pytest.raises(ValueError, match=f"vLLM does not read .*{text}.*; load it with PEFT"):
        vllm_command(adapter, lora, tmp_path)


# From LoRAs and back


@pytest.mark.parametrize("name", ["llama", "gpt2", "ranks"])
def test_a_lora_that_came_in_leaves_as_it_was(tmp_path, name):
    backbone = CASES[name][0]
    for number, folder in enumerate(("first", "second")):
        model, *_ = case(name)
        export_lora(model, tmp_path / folder, style={"loud": 1.0 + number, "calm": -0.5})
    model = from_loras(backbone(), {folder: tmp_path / folder for folder in ("first", "second")})
    for folder in ("first", "second"):
        export_lora(model, tmp_path / "out", style=folder)
        original, back = (PeftModel.from_pretrained(backbone(), tmp_path / f).eval() for f in (folder, "out"))
        torch.testing.assert_close(logits(back), logits(original), atol=1e-5, rtol=1e-5)


# PEFT's own way out


@pytest.mark.parametrize("style", ["calm", MIXTURE, Style({"loud": 2.5})], ids=["style", "mixture", "strength"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_pefts_save_as_lora_is_as_exact_as_its_rank(tmp_path, name, style):
    model, _, backbone = case(name)
    wanted, errors = logits(model, styles=style), {}
    frozen = (wanted - logits(backbone)).norm()
    for rank in (2, 8):
        with model.styled(style):
            save_as_lora(tmp_path / str(rank), model, rank=rank)
        loaded = PeftModel.from_pretrained(CASES[name][0](), tmp_path / str(rank)).eval()
        errors[rank] = float((logits(loaded) - wanted).norm() / frozen)
    assert errors[8] < 1e-4  # the adapter's own rank: singular vectors instead of its factors, the same dW
    assert errors[2] > 0.05  # a lower one cuts
    export_lora(model, tmp_path / "own", style=style)
    loaded = PeftModel.from_pretrained(CASES[name][0](), tmp_path / "own").eval()
    assert float((logits(loaded) - wanted).norm() / frozen) < 1e-5
    assert {m.r["default"] for m in loaded.modules() if hasattr(m, "lora_A")} == {8}


def test_pefts_threshold_finds_the_rank_of_one_style(tmp_path):
    folders = {"first": tmp_path / "first", "second": tmp_path / "second"}
    for r, folder in enumerate(folders.values(), 2):
        export_lora(randomised(adapted(llama(), r=r)).eval(), folder)
    model = from_loras(llama(), folders).eval()
    with model.base_model.styled("second"):
        config, _ = convert_to_lora(model, 1.0 - 1e-6)
    assert set(config.rank_pattern.values()) == {3}  # the other LoRA's block is cut away
    assert export_lora(model, tmp_path / "own", style="second").r == 5  # ours keeps the adapter's rank


def test_pefts_conversion_refuses_a_batch_of_different_styles():
    model, *_ = case("llama")
    with model.styled(["loud", "calm"]), pytest.raises(ValueError, match=r"2 styles must be 1 to merge or export"):
        convert_to_lora(model, 8)


def test_an_adapter_of_another_method_is_refused(tmp_path):
    model = get_peft_model(llama(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match=r"adapter_name='default' must be a style adapter, found .*LORA"):
        export_lora(model, tmp_path)
