"""How small the trained part is, on the shape of SmolLM2-135M; nothing is computed, so the weights are on no device."""

import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from style_adapter import StyleAdapterConfig, StyleDiscriminator

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


def count(module, *, trained):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def test_adapter_is_under_4_percent_and_discriminator_under_1_percent_of_smollm2():
    with torch.device("meta"):
        backbone = LlamaForCausalLM(LlamaConfig(**SMOLLM2))
        whole = count(backbone, trained=False)
        config = StyleAdapterConfig(styles=["modern", "kjv"], r=16, target_modules="all-linear")
        adapter = count(get_peft_model(backbone, config), trained=True)
        discriminator = StyleDiscriminator(576, 2)
    assert 134_000_000 < whole < 135_000_000  # SmolLM2-135M has 134.5 million
    assert adapter / whole <= 0.04
    without_styles = count(discriminator, trained=True) - discriminator.styles.weight.numel()
    assert without_styles / whole <= 0.01


def test_a_further_style_costs_r_numbers_a_layer():
    counts = []
    for names in (["modern", "kjv"], ["modern", "kjv", "pirate"]):
        with torch.device("meta"):
            backbone = LlamaForCausalLM(LlamaConfig(**SMOLLM2))
            model = get_peft_model(backbone, StyleAdapterConfig(styles=names, r=16, target_modules="all-linear"))
        counts.append(count(model, trained=True))
    assert counts[1] - counts[0] == 16 * 7 * 30  # seven adapted layers in each of thirty blocks
