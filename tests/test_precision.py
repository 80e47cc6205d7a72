"""The toy is learnt in bf16 and on a 4-bit base; fp16, which needs a scaler, wants a GPU."""

from pathlib import Path

import pytest
import torch
from training_fixtures import adapted, llama, make_trainer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from style_adapter.trainer import StyleTrainer

LESSON = {"max_steps": 30, "logging_steps": 10.0, "per_device_train_batch_size": 16, "w_r1": 0.1, "adversary_start": 5}


def losses(trainer: StyleTrainer) -> list[float]:
    """The likelihood's loss as it was logged; all that was logged is finite."""
    lines = [line for line in trainer.state.log_history if "loss_ce" in line]
    assert all(torch.isfinite(torch.tensor(value)) for line in lines for value in line.values())
    assert {"loss_adv", "loss_d_adv", "loss_d_r1"} <= lines[-1].keys()
    return [line["loss_ce"] for line in lines]


def test_bf16_learns_the_toy_with_weights_left_in_fp32(tmp_path):
    trainer = make_trainer(tmp_path, bf16=True, **LESSON)
    kinds = set()
    trainer.model.model.get_base_model().model.layers[0].mlp.up_proj.register_forward_hook(
        lambda module, inputs, output: kinds.add(output.dtype)
    )
    trainer.train()
    found = losses(trainer)
    assert found[2] < found[1] < found[0]
    assert torch.bfloat16 in kinds
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_4_bit_base_teaches_the_toy(tmp_path, bf16):
    pytest.importorskip("bitsandbytes")
    llama(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    backbone = AutoModelForCausalLM.from_pretrained(tmp_path / "base", quantization_config=nf4())
    trainer = make_trainer(tmp_path, model=adapted(backbone), bf16=bf16, **LESSON)
    weight = backbone.model.layers[0].mlp.up_proj.base_layer.weight
    before = weight.data.clone()
    trainer.train()
    found = losses(trainer)
    assert found[2] < found[1] < found[0]
    assert weight.dtype == torch.uint8
    assert torch.equal(weight.data, before)


def nf4() -> BitsAndBytesConfig:
    """4 bits, computed with in fp32."""
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 trains on a GPU")
def test_fp16_is_refused_on_the_cpu(tmp_path: Path):
    with pytest.raises(ValueError, match=r"fp16=True must be False on the CPU, .*; set bf16=True instead"):
        make_trainer(tmp_path, fp16=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16 trains on a GPU")
def test_fp16_learns_the_toy_while_its_scaler_looks_for_a_scale(tmp_path: Path):
    options = LESSON | {"use_cpu": False, "fp16": True, "max_steps": 60}
    trainer = make_trainer(tmp_path, **options)
    trainer.train()
    found = losses(trainer)
    assert found[-1] < found[0]
    assert trainer.guard.skipped == 0
