"""Operations that switch adapters: one or another, both, none, merged, taken off."""

import pytest
import torch
from peft import LoHaConfig, get_peft_model
from peft.helpers import check_if_peft_model, rescale_adapter_scale
from torch import nn

from .architectures import ROWS, Architecture, Inputs
from .cases import operation
from .methods import Method, assert_close, assert_differ, assert_equal, assert_near


def row_of(inputs: Inputs, row: int) -> Inputs:
    """One row of the inputs."""
    return {name: tensor[row : row + 1] for name, tensor in inputs.items()}


def _same_names(model: nn.Module, architecture: Architecture) -> None:
    """The model has the base's modules and tensors, and no others."""
    assert set(model.state_dict()) == set(architecture.base().state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in architecture.base().modules()]


@operation()
def each_adapter_speaks_once_it_is_set(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture)
    for name in ("two", "one", "two"):
        model.set_adapter(name)
        assert model.active_adapters == [name]
        trained = {n for n, p in model.named_parameters() if p.requires_grad and method.prefix in n}
        assert trained == set(method.tensors(model, name))
        assert_close(architecture.run(model), architecture.run(method.by_hand(architecture, model, [name])))


@operation()
def two_active_adapters_add_their_updates(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture, task_type=None)  # a task's head, saved whole, allows one adapter at a time
    model.base_model.set_adapter(["one", "two"])
    both = architecture.run(model)
    assert_close(both, architecture.run(method.by_hand(architecture, model, ["one", "two"])))
    assert_differ(both, architecture.run(method.by_hand(architecture, model, ["one"])))


@operation()
def a_deleted_adapter_leaves_nothing(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture)
    alone = architecture.run(model)
    model.delete_adapter("two")
    assert not method.tensors(model, "two")
    assert list(model.peft_config) == ["one"]
    assert_equal(architecture.run(model), alone)
    with pytest.raises(ValueError, match="does not exist"):
        model.delete_adapter("two")


@operation()
def deleting_the_active_adapter_makes_the_other_speak(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture)
    expected = method.by_hand(architecture, model, ["two"])
    model.delete_adapter("one")
    assert model.active_adapters == ["two"]
    assert_close(architecture.run(model), architecture.run(expected))


@operation()
def disabled_is_the_base_and_back(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    before, plain = architecture.run(model), architecture.run(architecture.base())
    assert_differ(before, plain)
    with model.disable_adapter():
        assert_equal(architecture.run(model), plain)
    assert_equal(architecture.run(model), before)


@operation()
def gradients_are_switched_by_name(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture)
    for one, two in ((False, False), (True, True), (True, False)):
        model.set_requires_grad("one", requires_grad=one)
        model.set_requires_grad("two", requires_grad=two)
        for name, expected in (("one", one), ("two", two)):
            assert {p.requires_grad for p in method.tensors(model, name).values()} == {expected}


@operation()
def merged_and_unloaded_is_the_plain_model_with_the_update(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    expected, by_hand = architecture.run(model), method.by_hand(architecture, model)
    merged = model.merge_and_unload(safe_merge=True)
    assert_close(architecture.run(merged), expected)
    assert_close(architecture.run(merged), architecture.run(by_hand))
    _same_names(merged, architecture)
    assert not check_if_peft_model(str(type(merged)))


@operation()
def a_broken_adapter_does_not_merge(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    before = {n: p.clone() for n, p in architecture.base().named_parameters()}
    with torch.no_grad():
        next(iter(method.tensors(model).values())).fill_(float("nan"))
    with pytest.raises(ValueError, match="default"):
        model.merge_adapter(safe_merge=True)
    for name, layer in method.layers(model).items():
        assert_equal(layer.get_base_layer().weight, before[f"{name}.weight"])


@operation()
def merging_and_unmerging_returns(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    before, plain = architecture.run(model), architecture.base()
    model.merge_adapter()
    assert_close(architecture.run(model), before)
    with pytest.warns(UserWarning, match="merge"):
        model.merge_adapter()
    assert_close(architecture.run(model), before)
    model.unmerge_adapter()
    for name, layer in method.layers(model).items():
        assert_close(layer.get_base_layer().weight, plain.get_submodule(name).weight, 1e-6)
    assert_close(architecture.run(model), before)


@operation()
def one_of_two_adapters_merges(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture)
    expected = method.by_hand(architecture, model, ["two"])
    merged = model.merge_and_unload(adapter_names=["two"])
    assert_close(architecture.run(merged), architecture.run(expected))


@operation()
def a_merged_adapter_is_unmerged_by_disabling(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    before = architecture.run(model)
    model.merge_adapter()
    with model.disable_adapter():
        assert_close(architecture.run(model), architecture.run(architecture.base()))
    assert_close(architecture.run(model), before)


@operation()
def unloaded_is_the_base(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    assert_differ(architecture.run(model), architecture.run(architecture.base()))
    base = model.unload()
    _same_names(base, architecture)
    assert_equal(architecture.run(base), architecture.run(architecture.base()))


@operation()
def rows_name_their_adapters(method: Method, architecture: Architecture) -> None:
    model, inputs = method.two(architecture), architecture.inputs(ROWS)
    names = ["two", "__base__", "one"]
    with torch.no_grad():
        mixed = architecture.read(model(**inputs, adapter_names=names))
    for row, name in enumerate(names):
        alone = architecture.base() if name == "__base__" else method.by_hand(architecture, model, [name])
        assert_close(mixed[row : row + 1], architecture.run(alone, row_of(inputs, row)))


@operation()
def rows_cannot_name_an_unknown_adapter(method: Method, architecture: Architecture) -> None:
    model, inputs = method.two(architecture), architecture.inputs(ROWS)
    with pytest.raises(ValueError, match="three"):
        model(**inputs, adapter_names=["one", "two", "three"])


@operation(lambda a: a.generates and a.task is not None)
def generated_rows_name_their_adapters(method: Method, architecture: Architecture) -> None:
    model, inputs = method.two(architecture), architecture.inputs(ROWS)
    inputs = {name: tensor for name, tensor in inputs.items() if not name.startswith("decoder")}
    names, length = ["two", "__base__", "one"], {"min_new_tokens": 4, "max_new_tokens": 4}
    mixed = model.generate(**inputs, adapter_names=names, do_sample=False, **length)
    for row, name in enumerate(names):
        alone = architecture.base() if name == "__base__" else method.by_hand(architecture, model, [name])
        expected = alone.generate(**row_of(inputs, row), do_sample=False, **length)
        assert_equal(mixed[row : row + 1], expected)


@operation()
def two_adapters_combine_to_a_third(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture, task_type=None)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.3], "mix", combination_type="cat")
    plain, deltas = architecture.base(), method.layers(model)
    with torch.no_grad():
        for name, layer in deltas.items():
            weight = plain.get_submodule(name).weight
            weight += 0.7 * layer.get_delta_weight("one") + 0.3 * layer.get_delta_weight("two")
    model.set_adapter("mix")
    assert_close(architecture.run(model), architecture.run(plain))


@operation()
def the_scale_is_changed_inside_a_block(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    before = architecture.run(model)
    plain = architecture.base()
    with torch.no_grad():
        for name, layer in method.layers(model).items():
            weight = plain.get_submodule(name).weight
            weight += 0.5 * layer.get_delta_weight("default")
    with rescale_adapter_scale(model, multiplier=0.5):
        assert_close(architecture.run(model), architecture.run(plain))
    assert_equal(architecture.run(model), before)


@operation()
def adapters_of_several_methods_mix(method: Method, architecture: Architecture) -> None:
    base = get_peft_model(architecture.base(), method.config(architecture, task_type=None), "one", mixed=True)
    base.add_adapter("two", LoHaConfig(target_modules=list(architecture.targets), init_weights=False))
    base.set_adapter(["one", "two"])
    method.randomise(base, 1, "one")
    both = architecture.run(base.eval())
    base.set_adapter("two")
    assert_differ(both, architecture.run(base))


@operation()
def biases_of_two_adapters_cannot_both_train(method: Method, architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        method.two(architecture, bias="all")


@operation()
def merging_into_a_half_base_stays_near(method: Method, architecture: Architecture) -> None:
    model = get_peft_model(architecture.base().to(torch.bfloat16), method.config(architecture))
    method.randomise(model)
    expected = method.by_hand(architecture, model)
    merged = model.merge_and_unload(safe_merge=True)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    assert_near(architecture.run(merged.float()), architecture.run(expected))
