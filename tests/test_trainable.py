"""What trains: adapters in the last blocks, or the backbone too."""

import pytest
import torch
from conftest import bert, t5
from peft import PeftModel, get_peft_model, inject_adapter_in_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from torch import nn
from training_fixtures import gpt2, llama
from transformers import MixtralConfig, MixtralForCausalLM, ViTConfig, ViTForImageClassification

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


# Blocks


def vit() -> ViTForImageClassification:
    """A ViT of two blocks that tells three classes apart."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3)).eval()


def test_top_1_adapts_the_last_block_of_a_vision_model():
    whole, top = (
        adapted(vit(), trainable=t, target_modules="all-linear", exclude_modules=["classifier"])
        for t in ("adapter", "top:1")
    )
    (stack,) = {stack for stack, _ in blocks_of(whole)}
    assert blocks_of(whole) == {(stack, 0), (stack, 1)}
    assert blocks_of(top) == {(stack, 1)}


def test_top_leaves_the_earlier_blocks_untouched_and_travels(tmp_path):
    model = adapted(llama(), trainable="top:1", task_type="CAUSAL_LM", init_weights=False)
    first, second = hidden(stepped(model), styles="loud")[1:3]
    plain_first, plain_second = hidden(llama())[1:3]
    assert torch.equal(first, plain_first)
    assert not torch.equal(second, plain_second)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(), tmp_path).eval()
    assert torch.equal(logits(loaded), logits(model))


def hidden(model: nn.Module, **options) -> tuple[torch.Tensor, ...]:
    """The hidden states before and after each block."""
    with torch.no_grad():
        return model(input_ids=IDS, output_hidden_states=True, **options).hidden_states


def test_top_without_a_list_of_blocks_raises():
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"trainable='top:2' must have a model with a list of blocks .* Sequential"):
        adapted(plain, trainable="top:2", target_modules=["0"])


# The backbone too


def mixtral() -> MixtralForCausalLM:
    """A mixture of experts: transformers renames its tensors where they are loaded."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    experts = {"num_key_value_heads": 1, "num_local_experts": 2, "vocab_size": 31, "pad_token_id": 0}
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(**sizes, **experts)).eval()


FAMILIES = {"gpt2": gpt2, "t5": t5, "bert": bert, "mixtral": mixtral}
TASKS = {"t5": "SEQ_2_SEQ_LM", "bert": "SEQ_CLS"}


def said(model: nn.Module, **options) -> torch.Tensor:
    """Logits of any of the families."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    extra = {"decoder_input_ids": IDS} if base.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=IDS, **extra, **options).logits


def moved(model: nn.Module) -> nn.Module:
    """Every tensor that trains, moved a little."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("family", ["gpt2", "t5", "bert"])
def test_every_parameter_gets_a_gradient(family):
    model = moved(adapted(FAMILIES[family](), trainable="all", task_type=TASKS.get(family, "CAUSAL_LM"))).train()
    extra = {"decoder_input_ids": IDS} if family == "t5" else {}
    model(input_ids=IDS, styles=STYLES, **extra).logits.square().mean().backward()
    assert not [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None and ".original_module." not in name  # frozen: PEFT trains a copy of it
    ]


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True], ids=["copied", "put in place"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_backbone_becomes_the_trained_one_and_shares_what_it_shared(tmp_path, family, low_cpu_mem_usage):
    model = adapted(FAMILIES[family](), trainable="all", task_type=TASKS.get(family, "CAUSAL_LM"))
    moved(model).save_pretrained(tmp_path)
    backbone = FAMILIES[family]()
    assert not torch.allclose(said(backbone), said(model))
    loaded = PeftModel.from_pretrained(backbone, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert torch.equal(said(loaded, styles="loud"), said(model, styles="loud"))
    for half in (model, loaded):
        embedding, head = (get(half.get_base_model()) for get in (embedding_of, head_of))
        assert (head is not None and embedding is head) == (family in ("gpt2", "t5"))
    assert len(list(loaded.parameters())) == len(list(model.parameters()))


def embedding_of(model: nn.Module) -> nn.Parameter:
    """The weight of the token embedding."""
    return model.get_input_embeddings().weight


def head_of(model: nn.Module) -> nn.Parameter | None:
    """The weight of the head over words."""
    head = model.get_output_embeddings()
    return None if head is None else head.weight


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True], ids=["copied", "put in place"])
def test_the_backbone_keeps_the_dtype_it_was_loaded_in(tmp_path, low_cpu_mem_usage):
    model = moved(adapted(llama(), trainable="all", task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path)
    half = llama().bfloat16()
    loaded = PeftModel.from_pretrained(half, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
    assert {p.dtype for n, p in loaded.named_parameters() if "style_adapter_" not in n} == {torch.bfloat16}
    torch.testing.assert_close(logits(loaded).float(), logits(model), rtol=0.1, atol=0.1)


def test_the_backbone_is_saved_whole_whatever_else_is_adapted(tmp_path):
    model = moved(adapted(llama(), trainable="all", task_type="CAUSAL_LM", target_modules=["q_proj"]))
    model.add_adapter("second", StyleAdapterConfig(styles=["x"], target_modules=["up_proj"], modules_to_save=["norm"]))
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    loaded = PeftModel.from_pretrained(llama(), tmp_path).eval()
    assert torch.equal(logits(loaded), logits(model))
    crowded = adapted(llama(), trainable="all", task_type="CAUSAL_LM", target_modules=["q_proj"])
    crowded.add_adapter("second", StyleAdapterConfig(styles=["x"], target_modules=["up_proj"]))
    crowded.load_adapter(tmp_path, "default")  # as a resumed run does
    assert torch.equal(logits(crowded.eval()), logits(model))


def test_an_injected_adapter_carries_the_backbone_too():
    config = StyleAdapterConfig(styles=STYLES, r=2, trainable="all")
    model = moved(inject_adapter_in_model(config, llama()))
    loaded = inject_adapter_in_model(config, llama()).eval()
    result = set_peft_model_state_dict(loaded, get_peft_model_state_dict(model))
    assert not result.unexpected_keys
    assert torch.equal(logits(loaded), logits(model))


def test_a_file_without_the_backbone_raises():
    model = adapted(llama(), trainable="all", task_type="CAUSAL_LM")
    tensors = {k: t for k, t in get_peft_model_state_dict(model).items() if "down_proj" not in k}
    with pytest.raises(ValueError, match=r"must hold the whole backbone, and .*down_proj\.weight is not in it"):
        set_peft_model_state_dict(model, tensors)


def test_a_quantised_backbone_takes_none_from_a_file():
    model = adapted(llama(), trainable="all", task_type="CAUSAL_LM")
    tensors = get_peft_model_state_dict(model)
    layer = model.get_base_model().model.layers[0].mlp.down_proj
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"must have a floating-point backbone, and .*down_proj.weight is torch.int8"):
        set_peft_model_state_dict(model, tensors)


def trains(model: nn.Module) -> set[str]:
    """What trains: the names of adapters, and "backbone"."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {next((a for a in ("default", "second") if f".{a}." in name), "backbone") for name in names}


def test_the_backbone_trains_with_its_own_adapter_alone():
    model = adapted(llama(), trainable="all", target_modules=["q_proj"])
    model.get_input_embeddings().weight.requires_grad_(False)  # by hand: stays as it is
    assert trains(model) == {"default", "backbone"}
    with model.disable_adapter():
        assert trains(model) == {"backbone"}
    assert trains(model) == {"default", "backbone"}
    model.add_adapter("second", StyleAdapterConfig(styles=["x"], target_modules=["up_proj"]))
    assert trains(model) == {"default", "backbone"}
    model.set_adapter("second")
    assert trains(model) == {"second"}
    model.base_model.set_adapter(["default", "second"])
    assert trains(model) == {"default", "second", "backbone"}
    model.set_adapter("default", inference_mode=True)
    assert trains(model) == set()
    model.set_adapter("default")
    assert trains(model) == {"default", "backbone"}
    assert not model.get_input_embeddings().weight.requires_grad
    model.delete_adapter("default")
    assert trains(model) == {"second"}


def test_a_model_of_plain_adapters_keeps_what_was_unfrozen_by_hand():
    model = adapted(llama(), target_modules=["q_proj"])
    model.get_input_embeddings().weight.requires_grad_(True)
    model.add_adapter("second", StyleAdapterConfig(styles=["x"], target_modules=["up_proj"]))
    for name in ("second", "default"):
        model.set_adapter(name)
        assert trains(model) == {name, "backbone"}


def test_an_adapter_loaded_to_run_leaves_the_backbone_frozen(tmp_path):
    adapted(llama(), trainable="all", task_type="CAUSAL_LM").save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(), tmp_path)
    assert trains(loaded) == set()
    assert trains(PeftModel.from_pretrained(llama(), tmp_path, is_trainable=True)) == {"default", "backbone"}


def test_all_for_a_further_adapter_raises(tmp_path):
    adapted(llama(), trainable="all", task_type="CAUSAL_LM").save_pretrained(tmp_path)
    model, text = adapted(llama(), task_type="CAUSAL_LM"), "trainable='all' must be the model's first adapter"
    with pytest.raises(ValueError, match=text):
        model.add_adapter("second", StyleAdapterConfig(trainable="all"))
    with pytest.raises(ValueError, match=text):
        model.load_adapter(tmp_path, "second")
    assert list(model.peft_config) == ["default"]
