"""What trains: adapters in the last blocks, or the backbone too."""

import pytest
import torch
from conftest import bert, t5
from peft import PeftModel, get_peft_model
from torch import nn
from training_fixtures import gpt2, llama

from style_adapter import StyleAdapterConfig
from style_adapter.layers import StyleLayer

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
STYLES = ["calm", "loud"]


def adapted(backbone: nn.Module, **options) -> PeftModel:
    return get_peft_model(backbone, StyleAdapterConfig(**({"styles": STYLES, "r": 2} | options)))


def blocks_of(model: nn.Module) -> set[tuple[str, int]]:
    """(stack, number) of each block that holds an adapted layer."""
    found = set()
    for name, module in model.named_modules():
        if isinstance(module, StyleLayer):
            parts = name.split(".")
            at = next(i for i, part in enumerate(parts) if part.isdigit())
            found.add((".".join(parts[2:at]), int(parts[at])))
    return found


@pytest.mark.parametrize(
    ("make", "stacks"),
    [
        (llama, ["model.layers"]),
        (gpt2, ["transformer.h"]),
        (bert, ["bert.encoder.layer"]),
        (t5, ["encoder.block", "decoder.block"]),
    ],
    ids=["llama", "gpt2", "bert", "t5"],
)
def test_top_1_adapts_the_last_block_of_each_stack_and_nothing_else(make, stacks):
    whole, top = adapted(make()), adapted(make(), trainable="top:1")
    depth = {stack: 1 + max(n for s, n in blocks_of(whole) if s == stack) for stack in stacks}
    assert blocks_of(top) == {(stack, depth[stack] - 1) for stack in stacks}
    assert blocks_of(whole) == {(stack, n) for stack in stacks for n in range(depth[stack])}


def test_top_of_more_blocks_than_there_are_adapts_all():
    assert blocks_of(adapted(llama(), trainable="top:99")) == blocks_of(adapted(llama()))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_top_leaves_out_what_lies_in_no_block():
    model = adapted(llama(), trainable="top:1", target_modules=["q_proj", "lm_head"])
    adapted_names = [name for name, module in model.named_modules() if isinstance(module, StyleLayer)]
    assert adapted_names == ["base_model.model.model.layers.1.self_attn.q_proj"]


def test_top_travels_with_the_adapter(tmp_path):
    adapted(llama(), trainable="top:1").save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(), tmp_path)
    assert loaded.peft_config["default"].trainable == "top:1"
    assert blocks_of(loaded) == {("model.layers", 1)}


def stepped(model: PeftModel) -> PeftModel:
    """`model` after three steps of descent on every parameter that trains."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS, styles=STYLES).loss.backward()
        optimizer.step()
    return model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, styles=STYLES[::-1]).logits


def test_all_trains_every_tensor_of_the_backbone():
    model = adapted(llama(), trainable="all", task_type="CAUSAL_LM")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    stepped(model)
    assert not [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]


@pytest.mark.parametrize("options", [{}, {"low_cpu_mem_usage": True}, {"is_trainable": True}], ids=str)
def test_all_saves_the_backbone_too_and_a_fresh_one_becomes_it(tmp_path, options):
    model = stepped(adapted(llama(), trainable="all", task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(), tmp_path, **options).eval()
    assert torch.equal(logits(loaded), logits(model))
    trains = {p.requires_grad for p in loaded.parameters()}
    assert trains == {options.get("is_trainable", False)}


def test_an_adapter_alone_saves_nothing_of_the_backbone(tmp_path):
    adapted(llama(), task_type="CAUSAL_LM").save_pretrained(tmp_path / "adapter")
    adapted(llama(), task_type="CAUSAL_LM", trainable="all").save_pretrained(tmp_path / "all")
    small, large = ((tmp_path / n / "adapter_model.safetensors").stat().st_size for n in ("adapter", "all"))
    backbone = sum(p.numel() * p.element_size() for p in llama().parameters())
    assert large - small >= backbone


def test_all_with_a_quantised_backbone_raises():
    backbone = llama()
    layer = backbone.model.layers[0].mlp.down_proj
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"trainable='all' must have a floating-point backbone, and .*down_proj"):
        adapted(backbone, trainable="all", target_modules=["q_proj"])
