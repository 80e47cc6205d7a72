"""Mixtures of experts: what sees whole rows adapts, what sees loose tokens says so."""

import copy

import pytest
import torch
import transformers
from conftest import STYLES, VOCAB, WIDTH, _seeded, adapted, gradients, randomise, token_ids
from kind_fixtures import tensors
from peft import get_peft_model
from torch import Tensor, nn

from style_adapter import StyleAdapterConfig

SIZES = {"vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "num_experts_per_tok": 2, "max_position_embeddings": 64}
SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}


def qwen3_moe() -> nn.Module:
    config = transformers.Qwen3MoeConfig(**SIZES, head_dim=8, moe_intermediate_size=8, num_experts=4)
    return _seeded(transformers.Qwen3MoeForCausalLM, config)


def mixtral() -> nn.Module:
    return _seeded(transformers.MixtralForCausalLM, transformers.MixtralConfig(**SIZES, num_local_experts=4))


families = pytest.mark.parametrize("family", [qwen3_moe, mixtral], ids=lambda family: family.__name__)


@families
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"], ids=str)
def test_attention_beside_routed_experts_speaks_each_rows_style(family, targets):
    model, ids = adapted(family(), target_modules=targets), token_ids(3)
    assert all("self_attn" in name for name in model.targeted_module_names)
    output = model(ids, styles=STYLES).logits
    with torch.no_grad():
        for i, style in enumerate(STYLES):
            merged = copy.deepcopy(model)
            with merged.styled(style):
                plain = merged.merge_and_unload()
            torch.testing.assert_close(output[i], plain(ids[i : i + 1]).logits[0], rtol=1e-4, atol=2e-5)
    output.square().mean().backward()
    assert gradients(model).keys() == tensors(model).keys()


@families
@pytest.mark.parametrize(
    ("target", "text"),
    [
        (
            "experts",
            r"mlp.experts, a \w+Experts whose experts are stacked .* target_parameters=\['.*experts.gate_up_proj', .*"
            r"or name the attention projections alone in target_modules",
        ),
        ("gate", r"mlp.gate, a \w+Router, which must be one of Linear, .* leave it out of target_modules"),
    ],
)
def test_stacked_experts_and_routers_raise_with_the_remedy(family, target, text):
    with pytest.raises(ValueError, match=text):
        adapted(family(), target_modules=[target, "q_proj"])


@pytest.mark.parametrize(("family", "names"), [(qwen3_moe, ["up_proj", "gate_proj"]), (mixtral, ["w1", "w3"])])
def test_projections_of_stacked_experts_that_are_named_as_modules_are_told_of(family, names):
    missing = r"set target_parameters=\['gate_up_proj'\], with one style a batch"
    with pytest.warns(
        UserWarning, match=rf"target_modules={sorted(names)!r} are not modules".replace("[", r"\[") + f".*{missing}"
    ):
        model = adapted(family(), target_modules=["q_proj", *names])
    assert all("self_attn" in name for name in model.targeted_module_names)
    adapted(family(), target_modules=["q_proj", *names], target_parameters=["experts.gate_up_proj"])  # no warning


class Routed(nn.Module):
    """Every token goes to one of two linear experts, by its first number."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(4, 4)
        self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.into(x).flatten(0, 1)
        output = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            chosen = (tokens[:, 0] > 0) == bool(number)
            output[chosen] = expert(tokens[chosen])
        return output.view_as(x)


def routed(targets: str):
    config = StyleAdapterConfig(styles=list(STYLES), target_modules=targets, r=2)
    return randomise(get_peft_model(Routed().double(), config)).eval()


def test_listed_experts_take_one_style_for_the_batch():
    model, x = routed(r"into|experts\.\d"), torch.randn(3, 5, 4, dtype=torch.float64)
    merged = copy.deepcopy(model)
    with merged.styled("kjv"):
        plain = merged.merge_and_unload()
    torch.testing.assert_close(model(x, styles="kjv"), plain(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("rows", [1, 3])
def test_listed_experts_refuse_a_style_a_row_however_many_tokens_they_get(rows):
    model, x = routed(r"into|experts\.\d"), torch.randn(rows, 1, 4, dtype=torch.float64)
    if rows == 1:
        assert model(x, styles=["kjv"]).shape == x.shape
        return
    with pytest.raises(
        ValueError, match=r"3 styles for one expert, experts\.\d, which gets tokens of any row; give one"
    ):
        model(x, styles=STYLES)


def test_without_its_experts_the_model_speaks_each_rows_style():
    model, x = routed("into"), torch.randn(3, 5, 4, dtype=torch.float64)
    output = model(x, styles=STYLES)
    for i, style in enumerate(STYLES):
        torch.testing.assert_close(output[i], model(x[i : i + 1], styles=style)[0], rtol=0, atol=1e-10)
