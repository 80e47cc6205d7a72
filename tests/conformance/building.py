"""Operations that build an adapter: which layers, of which rank, in which dtype, shown how."""

import re
from collections.abc import Callable, Iterable

import pytest
import torch
from peft import get_layer_status, get_model_status, get_peft_model, prepare_model_for_kbit_training
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_DEFAULTS
from torch import nn
from transformers.pytorch_utils import Conv1D

from .architectures import ROWS, Architecture
from .cases import has, operation
from .methods import ALPHA, RANK, Method, assert_close, assert_equal, assert_near


def _named(architecture: Architecture, fits: Callable[[str, nn.Module], object]) -> set[str]:
    """The names of the base model's modules that fit."""
    return {name for name, module in architecture.base().named_modules() if fits(name, module)}


def _ends_in(names: Iterable[str]) -> Callable[[str, nn.Module], object]:
    return lambda name, module: name.split(".")[-1] in set(names)


def _adapted(method: Method, architecture: Architecture, **options: object) -> set[str]:
    return set(method.layers(get_peft_model(architecture.base(), method.config(architecture, **options))))


@operation()
def training_starts_at_the_base(method: Method, architecture: Architecture) -> None:
    model = get_peft_model(architecture.base(), method.config(architecture)).eval()
    assert_equal(architecture.run(model), architecture.run(architecture.base()))


@operation()
def targets_left_out_are_pefts_own(method: Method, architecture: Architecture) -> None:
    kind = getattr(getattr(architecture.base(), "config", None), "model_type", "custom")
    if kind not in PEFT_DEFAULTS:
        with pytest.raises(ValueError, match="Please specify `target_modules`"):
            _adapted(method, architecture, target_modules=None)
        return
    assert _adapted(method, architecture, target_modules=None) == _named(architecture, _ends_in(PEFT_DEFAULTS[kind]))


@operation(has("transformers"))
def all_linear_is_every_linear_layer_but_the_head(method: Method, architecture: Architecture) -> None:
    base = architecture.base()
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    linear = {n for n, m in base.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head}
    running = {name for name in linear if name.split(".")[-1] not in architecture.uncalled}
    assert set(method.layers(get_peft_model(base, method.all_linear(architecture)))) == running


@operation(lambda a: bool(a.uncalled))
def layers_that_are_never_called_are_refused(method: Method, architecture: Architecture) -> None:
    for name in architecture.uncalled:
        with pytest.raises(ValueError, match=name):
            _adapted(method, architecture, target_modules=[name])


@operation()
def adapted_layers_show_their_sizes(method: Method, architecture: Architecture) -> None:
    model, plain = method.adapted(architecture), architecture.base()
    for name, layer in method.layers(model).items():
        base = plain.get_submodule(name)
        shape = tuple(base.weight.shape)
        assert (layer.out_features, layer.in_features) == (shape[::-1] if isinstance(base, Conv1D) else shape)
        assert layer.weight is layer.get_base_layer().weight


@operation()
def targets_by_a_list_are_the_modules_of_that_name(method: Method, architecture: Architecture) -> None:
    assert _adapted(method, architecture) == _named(architecture, _ends_in(architecture.targets))


@operation()
def targets_by_a_regular_expression_are_the_full_matches(method: Method, architecture: Architecture) -> None:
    pattern = rf".*\.1\..*{architecture.targets[0]}"
    expected = _named(architecture, lambda name, module: re.fullmatch(pattern, name))
    assert expected
    assert _adapted(method, architecture, target_modules=pattern) == expected


@operation()
def targets_that_are_nowhere_raise(method: Method, architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="not found in the base model"):
        _adapted(method, architecture, target_modules=["nowhere"], task_type=None)


@operation()
def excluded_modules_are_left_alone(method: Method, architecture: Architecture) -> None:
    listed = _named(architecture, _ends_in(architecture.targets))
    later = {name for name in listed if ".0." not in name}
    assert later < listed
    assert _adapted(method, architecture, exclude_modules=r".*\.0\..*") == later


@operation()
def blocks_are_chosen_by_index(method: Method, architecture: Architecture) -> None:
    listed = _named(architecture, _ends_in(architecture.targets))
    second = {name for name in listed if re.search(rf"(^|\.){architecture.blocks}\.1\.", name)}
    assert second < listed
    for pattern in (None, architecture.blocks, [architecture.blocks]):
        chosen = _adapted(method, architecture, layers_to_transform=[1], layers_pattern=pattern)
        assert chosen == second, pattern


@operation()
def patterns_set_rank_and_alpha_by_module(method: Method, architecture: Architecture) -> None:
    first, last = architecture.targets[0], architecture.targets[-1]
    model = method.adapted(architecture, rank_pattern={first: 2}, alpha_pattern={rf".*\.1\..*{last}": 3.0})
    for name, layer in method.layers(model).items():
        rank = 2 if name.endswith(first) else RANK
        alpha = 3 if name.endswith(last) and ".1." in name else ALPHA
        assert torch.linalg.matrix_rank(layer.get_delta_weight("default")) == rank, name
        assert layer.scaling["default"] == alpha / rank, name


@operation()
def rslora_scales_by_the_root_of_the_rank(method: Method, architecture: Architecture) -> None:
    usual, stable = (method.adapted(architecture, use_rslora=use) for use in (False, True))
    plain = architecture.base()
    with torch.no_grad():
        for name, layer in method.layers(usual).items():
            weight = plain.get_submodule(name).weight
            weight += layer.get_delta_weight("default") * RANK**0.5  # alpha / r -> alpha / sqrt(r)
    assert_close(architecture.run(stable), architecture.run(plain))


def _base_of_dtype(method: Method, architecture: Architecture, dtype: torch.dtype) -> None:
    """With autocasting the adapter trains in fp32 on a half base, without it in the base's dtype."""
    inputs = architecture.inputs(ROWS)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    expected = architecture.run(architecture.base().to(dtype), inputs)
    for autocast in (True, False):
        model = get_peft_model(
            architecture.base().to(dtype), method.config(architecture), autocast_adapter_dtype=autocast
        )
        own = {p.dtype for p in method.tensors(model).values()}
        assert own == ({torch.float32} if autocast else {dtype})
        assert_equal(architecture.run(model.eval(), inputs), expected)
        architecture.read(model(**inputs)).float().sum().backward()
        gradients = [p.grad for p in method.tensors(model).values() if p.grad is not None]
        assert gradients
        assert all(torch.isfinite(g).all() for g in gradients)


@operation()
def a_bf16_base_keeps_its_dtype(method: Method, architecture: Architecture) -> None:
    _base_of_dtype(method, architecture, torch.bfloat16)


@operation()
def a_fp16_base_keeps_its_dtype(method: Method, architecture: Architecture) -> None:
    _base_of_dtype(method, architecture, torch.float16)


@operation()
def a_fp32_base_keeps_its_dtype(method: Method, architecture: Architecture) -> None:
    _base_of_dtype(method, architecture, torch.float32)


@operation()
def status_counts_layers_and_parameters(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture)
    layers = method.layers(model)
    statuses = {s.name.removeprefix("model."): s for s in get_layer_status(model)}
    assert layers.keys() <= statuses.keys()
    for name in layers:
        status = statuses[name]
        assert (status.enabled, status.active_adapters, status.merged_adapters) == (True, ["one"], [])
        assert status.available_adapters == ["one", "two"]
        assert status.requires_grad == {"one": True, "two": False}
    status = get_model_status(model)
    assert status.num_adapter_layers == len(statuses)
    assert status.trainable_params == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert status.total_params == sum(p.numel() for p in model.parameters())
    assert (status.active_adapters, status.available_adapters) == (["one"], ["one", "two"])
    with model.disable_adapter():
        assert get_model_status(model).enabled is False


@operation()
def a_model_cast_as_a_whole_runs(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    exact, dtype = architecture.run(model), torch.bfloat16
    inputs = architecture.inputs(ROWS)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    cast = architecture.run(model.to(dtype), inputs)
    assert cast.dtype == architecture.run(architecture.base().to(dtype), inputs).dtype
    assert_near(cast.float(), exact)


@operation(has("resize"))
def a_base_prepared_for_kbit_training_hands_gradients_on(method: Method, architecture: Architecture) -> None:
    base = prepare_model_for_kbit_training(architecture.base(), use_gradient_checkpointing=False)
    assert not any(p.requires_grad for p in base.parameters())
    model = get_peft_model(base, method.config(architecture, task_type=None))
    model.enable_input_require_grads()
    assert model.get_input_embeddings()(torch.tensor([[3]])).requires_grad
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(method.tensors(model))
