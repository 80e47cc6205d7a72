"""Backbones that torchao or GGUF made small, against the same weights in full."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import adapted, gradients, llama, token_ids
from peers_fixtures import peer
from torch import nn
from transformers import AutoModelForCausalLM, GgufConfig, TorchAoConfig

MIXED = ["modern", "kjv", "pirate"]


def adapter_on(backbone):
    return adapted(backbone, target_modules="all-linear", task_type="CAUSAL_LM")


def loss_gradients(model):
    """Gradients of the adapter on a batch of three styles, and the loss."""
    ids = token_ids(3)
    loss = model(input_ids=ids, labels=ids, styles=MIXED).loss
    loss.backward()
    return {"loss": loss.detach(), **gradients(model)}


# torchao


@pytest.fixture
def int8(tmp_path):
    """Makes a Llama with int8 weights, as transformers loads it."""
    quantization = peer("torchao.quantization")
    llama().save_pretrained(tmp_path)

    def load():
        how = TorchAoConfig(quantization.Int8WeightOnlyConfig())
        return AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=how)

    return load


def dequantised(backbone):
    """A Llama with the values that the int8 weights stand for."""
    plain = llama()
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear) and hasattr(module.weight, "dequantize"):
            plain.get_submodule(name).weight.data = module.weight.dequantize().detach()
    return plain


def test_an_adapter_on_int8_weights_has_the_loss_and_gradients_of_the_weights_they_stand_for(int8):
    quantised, plain = int8(), dequantised(int8())
    assert type(quantised.model.layers[0].self_attn.q_proj.weight).__name__ == "Int8Tensor"
    assert not torch.equal(plain.model.layers[0].mlp.up_proj.weight, llama().model.layers[0].mlp.up_proj.weight)
    torch.testing.assert_close(
        loss_gradients(adapter_on(quantised)), loss_gradients(adapter_on(plain)), atol=1e-4, rtol=1e-3
    )


def test_a_style_merges_into_int8_weights_up_to_their_rounding(int8):
    model, ids = adapter_on(int8()), token_ids(3)
    with torch.no_grad():
        wanted = model(ids, styles="kjv").logits
        before = model(ids, styles="modern").logits
        with model.styled("kjv"), pytest.warns(UserWarning, match=r"the base is quantised \(torchao\), and W \+ dW"):
            model.merge_adapter()
        merged = model(ids).logits
        model.unmerge_adapter()
        assert torch.equal(model(ids, styles="modern").logits, before)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert type(layer.base_layer.weight).__name__ == "Int8Tensor"
    assert (merged - wanted).abs().mean() < 0.05 * wanted.abs().mean()


def test_weights_quantised_behind_transformers_back_are_refused():
    quantization = peer("torchao.quantization")
    backbone = llama()
    quantization.quantize_(backbone, quantization.Int8WeightOnlyConfig())
    with pytest.raises(ValueError, match="torchao quantized layer detected but 'get_apply_tensor_subclass' was not"):
        adapter_on(backbone)


# GGUF

SIZES = {"hidden_size": 32, "intermediate_size": 32}  # its blocks hold 32 numbers
TENSORS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
IN_BLOCK = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(path: Path) -> None:
    """The Llama with its projections in 8-bit blocks, as llama.cpp's converter lays them out."""
    gguf = peer("gguf")
    backbone = llama(**SIZES)
    config, writer = backbone.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    eight_bit = gguf.GGMLQuantizationType.Q8_0
    names = TENSORS | {
        f"model.layers.{i}.{ours}": f"blk.{i}.{theirs}" for i in (0, 1) for ours, theirs in IN_BLOCK.items()
    }
    for key, weight in backbone.state_dict().items():
        name, values = key.removesuffix(".weight"), weight.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if name.endswith(part):  # rotary halves interleaved
                values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        if name.endswith("_proj"):
            blocks = gguf.quants.quantize(np.ascontiguousarray(values), eight_bit)
            writer.add_tensor(f"{names[name]}.weight", blocks, raw_dtype=eight_bit)
        else:
            writer.add_tensor(f"{names[name]}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    "options", [{}, {"quantization_config": GgufConfig(dequantize=True)}], ids=["as read", "plain"]
)
def test_an_adapter_on_a_gguf_has_the_loss_and_gradients_of_the_weights_it_stands_for(options, tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", **options).eval()
    plain = llama(**SIZES)
    rounding = max((p - plain.get_parameter(name)).abs().max() for name, p in read.named_parameters())
    assert 0 < rounding < 0.01
    plain.load_state_dict(read.state_dict())
    torch.testing.assert_close(loss_gradients(adapter_on(read)), loss_gradients(adapter_on(plain)))
