"""`target_parameters`: updates of parameters that are no layer of their own, stacked experts above all."""

import copy
import threading

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from conftest import STYLES, adapted, gradients, llama, randomise, token_ids
from kind_fixtures import tensors
from peft import LoraConfig, PeftModel, get_peft_model
from test_experts import families, mixtral, qwen3_moe
from torch import Tensor, nn

from style_adapter import OFF, StyleAdapterConfig, export_lora, styled

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def on_experts(family, **options):
    return adapted(family(), **{"target_modules": [], "target_parameters": EXPERTS} | options)


def logits(model, ids, **options):
    with torch.no_grad():
        return model(ids, use_cache=False, **options).logits


class Stacks(nn.Module):
    """Each row goes through one of two experts, W [experts, d_in, d_out] or [experts, d_out, d_in], and a matrix."""

    def __init__(self, is_transposed: bool) -> None:
        super().__init__()
        self.is_transposed = is_transposed
        self.stack = nn.Parameter(torch.randn(2, 4, 6) if is_transposed else torch.randn(2, 6, 4))
        self.matrix = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        stack = self.stack if self.is_transposed else self.stack.transpose(1, 2)
        each = [row @ stack[i % 2] for i, row in enumerate(x)]
        return torch.stack(each) @ self.matrix.T


def stacks(is_transposed: bool = False) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(Stacks(is_transposed)).double().requires_grad_(False)


def on_stacks(is_transposed: bool = False, names: tuple[str, ...] = ("stack", "matrix"), **options):
    targets = [f"0.{name}" for name in names]
    config = StyleAdapterConfig(styles=list(STYLES), r=3, target_modules=[], target_parameters=targets, **options)
    return randomise(get_peft_model(stacks(is_transposed), config)).double().eval()


X = torch.randn(4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@families
def test_gate_one_equals_peft_lora_in_output_and_gradients(family):
    ids, options = token_ids(3), {"target_modules": [], "target_parameters": EXPERTS, "r": 4}
    ours = get_peft_model(family(), StyleAdapterConfig(alpha=8.0, **options))
    theirs = get_peft_model(family(), LoraConfig(lora_alpha=8, **options))
    generator = torch.Generator().manual_seed(0)
    factors = {n: p for n, p in theirs.named_parameters() if "lora_" in n}
    with torch.no_grad():
        for name, factor in factors.items():
            factor.normal_(std=0.3, generator=generator)
            ours.get_parameter(name.replace("lora_", "style_adapter_")).copy_(factor)
    torch.testing.assert_close(logits(ours, ids), logits(theirs, ids), rtol=1e-4, atol=1e-5)
    for model in (ours, theirs):
        model(ids).logits.square().mean().backward()
    for name, factor in factors.items():
        mine = ours.get_parameter(name.replace("lora_", "style_adapter_"))
        torch.testing.assert_close(mine.grad, factor.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("is_transposed", [False, True])
def test_every_gradient_equals_finite_differences(is_transposed):
    model = on_stacks(is_transposed)
    trained = {name: p.detach() for name, p in tensors(model).items()}

    def loss(*values):
        given = dict(zip(trained, values, strict=True))
        return torch.func.functional_call(model, given, (X,), {"styles": "kjv"})

    assert torch.autograd.gradcheck(loss, tuple(p.clone().requires_grad_() for p in trained.values()))


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("spec", ["kjv", {"modern": 0.5, "pirate": -1.5}], ids=str)
def test_each_expert_has_its_own_update_under_the_gate_of_the_style(is_transposed, spec):
    model, plain = on_stacks(is_transposed), stacks(is_transposed)
    with model.styled(spec):
        output = model(X)
    outer = next(m for m in model.modules() if hasattr(m, "parameter_name"))
    for layer in (outer, outer.base_layer):
        a, b, table = (layer.get_parameter(f"style_adapter_{n}.default.weight").detach() for n in ("A", "B", "gate"))
        gate = sum(w * table[STYLES.index(n)] for n, w in ({spec: 1.0} if isinstance(spec, str) else spec).items())
        weight = plain.get_parameter(f"0.{layer.parameter_name}")
        experts = weight.shape[0] if weight.dim() == 3 else 1
        for e in range(experts):
            delta = layer.scaling["default"] * b[:, e::experts] @ (gate[:, None] * a[3 * e : 3 * e + 3])
            one = weight[e] if weight.dim() == 3 else weight
            one += delta.T if is_transposed and weight.dim() == 3 else delta
    torch.testing.assert_close(output, plain(X), rtol=0, atol=1e-10)


@families
@pytest.mark.parametrize("targets", [[], ["q_proj"]], ids=str)
def test_a_style_equals_the_model_it_is_merged_into_and_off_the_backbone(family, targets):
    model, ids = on_experts(family, target_modules=targets), token_ids(3)
    for style in STYLES:
        merged = copy.deepcopy(model)
        with merged.styled(style):
            plain = merged.merge_and_unload(safe_merge=True)
        assert plain.state_dict().keys() == family().state_dict().keys()
        torch.testing.assert_close(logits(model, ids, styles=style), logits(plain, ids), rtol=1e-4, atol=2e-5)
    assert not torch.allclose(logits(model, ids, styles="kjv"), logits(model, ids, styles="modern"), atol=1e-2)
    assert torch.equal(logits(model, ids, styles=OFF), logits(family(), ids))


def test_a_batch_of_different_styles_raises_and_says_which_parameter():
    model = on_experts(qwen3_moe, target_modules=["q_proj"])
    with pytest.raises(
        ValueError, match=r"3 styles for the parameter model\.layers\.0\.mlp\.experts\.\w+, which all rows"
    ):
        model(token_ids(3), styles=STYLES)


def test_strength_reaches_one_parameter_of_a_module():
    model, ids = on_experts(mixtral), token_ids(3)
    with model.styled("kjv", strength={"down_proj": 0.0}):
        half = logits(model, ids)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("experts.style_adapter_B.default.weight"):  # the outer wrapper is that of down_proj
                parameter.zero_()
    torch.testing.assert_close(half, logits(model, ids, styles="kjv"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", ["kjv", {"modern": 0.5, "pirate": -1.5}], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"target_modules": ["q_proj"]}, {"rank_pattern": {r".*\.down_proj": 2}}], ids=str
)
@pytest.mark.filterwarnings(
    "ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"
)  # of parameters
def test_an_exported_style_is_a_lora_of_stock_peft(tmp_path, spec, options):
    model, ids = on_experts(qwen3_moe, **options), token_ids(3)
    export_lora(model, tmp_path, style=spec)
    lora = PeftModel.from_pretrained(qwen3_moe(), tmp_path)
    torch.testing.assert_close(logits(lora, ids), logits(model, ids, styles=spec), rtol=1e-4, atol=2e-5)


def test_a_second_adapter_speaks_and_is_deleted_whole():
    model, ids = on_experts(mixtral), token_ids(3)
    before = logits(model, ids, styles="kjv")
    options = {"styles": ["calm"], "r": 2, "target_modules": []}
    model.add_adapter("two", StyleAdapterConfig(target_parameters=EXPERTS, **options))
    model.set_adapter("two")
    randomise(model, seed=3)
    alone = logits(model, ids, styles="calm")
    model.delete_adapter("two")
    assert not tensors(model, "two")
    assert not torch.allclose(alone, before, atol=1e-2)
    with pytest.raises(ValueError, match=r"target_parameters=\['down_proj'\] must be those of the model's other adapt"):
        model.add_adapter("three", StyleAdapterConfig(target_parameters=["down_proj"], **options))


def test_threads_run_one_module_in_different_styles():
    model = on_stacks()
    expected = {style: model(X, styles=style) for style in STYLES}
    wrong: list[str] = []

    def speak(style: str) -> None:
        for _ in range(50):
            if not torch.equal(model(X, styles=style), expected[style]):
                wrong.append(style)

    threads = [threading.Thread(target=speak, args=(style,)) for style in STYLES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_through_checkpointed_blocks_are_the_same(reentrant):
    def run(checkpointed: bool) -> dict[str, Tensor]:
        model = on_experts(qwen3_moe).train()
        if checkpointed:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        with styled(model, "kjv"):
            loss = model(token_ids(3), use_cache=False).logits.square().mean()
        loss.backward()
        return gradients(model)

    torch.testing.assert_close(run(True), run(False), rtol=1e-4, atol=1e-6)


def test_merging_into_a_tied_matrix_leaves_the_other_side_alone_and_unmerging_ties_again():
    model = adapted(llama(tie_word_embeddings=True), target_modules=[], target_parameters=["lm_head.weight"])
    base, ids = model.get_base_model(), token_ids(3)
    expected = logits(model, ids, styles="kjv")
    with model.styled("kjv"):
        model.merge_adapter()
    torch.testing.assert_close(logits(model, ids), expected, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    assert base.lm_head.get_base_layer().weight is base.model.embed_tokens.weight
    assert torch.equal(logits(model, ids, styles="kjv"), expected)


def test_top_adapts_the_parameters_of_the_last_blocks_alone():
    model = on_experts(qwen3_moe, trainable="top:1")
    assert {name.split(".layers.")[1][0] for name in tensors(model)} == {"1"}


@pytest.mark.parametrize(
    "options", [{"dropout": 0.1}, {"init_weights": "pissa"}, {"init_weights": "orthogonal"}], ids=str
)
def test_options_without_a_meaning_for_parameters_raise(options):
    with pytest.raises(ValueError, match=r"must be 0 and True or False with target_parameters: .* leave these options"):
        on_experts(qwen3_moe, **options)


def test_what_is_no_matrix_raises():
    model = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(
        ValueError, match=r"matched 0.weight, torch.float32 of shape \[4\], which must be a floating-point"
    ):
        get_peft_model(model, StyleAdapterConfig(target_modules=[], target_parameters=["0.weight"]))


def test_a_layer_of_another_adapter_is_not_taken_for_its_parameter():
    config = {"styles": ["calm"], "r": 2}
    model = get_peft_model(
        nn.Sequential(nn.Linear(4, 4)), StyleAdapterConfig(target_modules=[], target_parameters=["0.weight"], **config)
    )
    with pytest.raises(ValueError, match="0 has an adapter on its parameter weight"):
        model.add_adapter("two", StyleAdapterConfig(target_modules=["0"], **config))


def test_a_module_spread_over_devices_runs_by_its_hooks_and_an_offloaded_one_raises():
    model, expected = on_stacks(), on_stacks()(X, styles="kjv")
    module = next(m for m in model.modules() if isinstance(m, Stacks))
    add_hook_to_module(module, AlignDevicesHook(execution_device="cpu"))
    assert "forward" in vars(module)
    assert torch.equal(model(X, styles="kjv"), expected)
    remove_hook_from_module(module)
    cpu_offload(module)
    with pytest.raises(
        ValueError, match=r"0.matrix must not be offloaded: .* keep that module on a device in device_map"
    ):
        model(X, styles="kjv")
