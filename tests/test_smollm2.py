"""The real backbone: takes minutes and packages that `make quickstart` installs, so it is left to `make test-full`."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from style_adapter import OFF, StyleAdapterConfig

pytestmark = pytest.mark.slow
smollm2 = pytest.importorskip("smollm2", exc_type=ImportError)


@pytest.fixture(scope="module")
def folder():
    try:
        return smollm2.backbone_folder()
    except ImportError as missing:
        pytest.skip(str(missing))


def test_a_four_bit_smollm2_trains_its_adapter_and_nothing_else(folder):
    pytest.importorskip("bitsandbytes")
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    backbone = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantised, dtype=torch.float32)
    config = StyleAdapterConfig(styles=["modern", "kjv"], r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(backbone, config)
    tokens = torch.arange(100, 140).reshape(2, 20)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(4):
        loss = model(input_ids=tokens, labels=tokens, styles=["modern", "kjv"]).loss
        loss.backward()
        assert all("style_adapter_" in name for name, p in model.named_parameters() if p.grad is not None)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_off_is_the_real_backbone_bit_by_bit(folder):
    backbone = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.arange(100, 140).reshape(2, 20)
    with torch.no_grad():
        plain = backbone(tokens).logits
        config = StyleAdapterConfig(r=4, target_modules="all-linear", init_weights=False)
        model = get_peft_model(backbone, config).eval()
        assert not torch.equal(model(tokens).logits, plain)
        assert torch.equal(model(tokens, styles=OFF).logits, plain)


def test_a_four_bit_smollm2_dequantised_merges_a_style_exactly(folder):
    pytest.importorskip("bitsandbytes")
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    backbone = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantised, dtype=torch.float32)
    config = StyleAdapterConfig(styles=["modern", "kjv"], r=4, target_modules="all-linear", init_weights=False)
    model = get_peft_model(backbone, config).eval()
    tokens = torch.arange(100, 140).reshape(2, 20)
    with torch.no_grad(), model.styled("kjv"):
        expected = model(tokens).logits
        model.dequantize()
        torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-3, atol=1e-2)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(tokens).logits, expected, rtol=1e-3, atol=1e-2)
