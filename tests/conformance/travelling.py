"""Operations by which an adapter travels: saved, loaded, injected, copied, converted."""

import copy
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import peft
import torch
from peft import (
    PeftModel,
    convert_to_lora,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    save_as_lora,
    set_peft_model_state_dict,
)
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file, save_file
from torch import nn

from .architectures import Architecture
from .cases import has, operation
from .methods import RANK, Method, assert_close, assert_differ, assert_equal

AUTO = {
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
}


@operation()
def a_loaded_adapter_gives_equal_bits(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    expected = architecture.run(model)
    assert_differ(expected, architecture.run(architecture.base()))
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for fast in (False, True):
            loaded = PeftModel.from_pretrained(architecture.base(), folder, low_cpu_mem_usage=fast)
            assert_equal(architecture.run(loaded), expected)
            assert not any(p.requires_grad for p in loaded.parameters())
        trainable = PeftModel.from_pretrained(architecture.base(), folder, is_trainable=True)
    assert {n for n, p in trainable.named_parameters() if p.requires_grad} >= set(method.tensors(trainable))


@operation()
def a_second_adapter_loads_beside_the_first(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture, seed=5)
    expected = architecture.run(model)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        host = method.adapted(architecture, seed=6)
        before = architecture.run(host)
        for name, fast in (("guest", False), ("fast", True)):
            host.load_adapter(folder, adapter_name=name, low_cpu_mem_usage=fast)
            assert_equal(architecture.run(host), before)
            host.set_adapter(name)
            assert_equal(architecture.run(host), expected)
            host.set_adapter("default")


@operation(lambda a: a.task in AUTO)
def autopeft_rebuilds_the_model_from_the_folder(method: Method, architecture: Architecture) -> None:
    with TemporaryDirectory() as folder:
        base = architecture.base()
        base.save_pretrained(Path(folder, "base"))
        base = type(base).from_pretrained(Path(folder, "base"))
        model = method.randomise(get_peft_model(base, method.config(architecture))).eval()
        model.save_pretrained(Path(folder, "adapter"))
        loaded = getattr(peft, AUTO[architecture.task or ""]).from_pretrained(Path(folder, "adapter"))
    assert_equal(architecture.run(loaded.eval()), architecture.run(model))


@operation(lambda a: a.head is not None)
def a_module_saved_whole_travels_with_the_adapter(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture, modules_to_save=[architecture.head])
    whole = {n: p for n, p in model.named_parameters() if "modules_to_save.default" in n}
    assert whole
    assert all(p.requires_grad for p in whole.values())
    before = architecture.run(model)
    with torch.no_grad():
        for parameter in whole.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    expected = architecture.run(model)
    assert_differ(expected, before)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        assert_equal(architecture.run(PeftModel.from_pretrained(architecture.base(), folder)), expected)
    with model.disable_adapter():
        assert_equal(architecture.run(model), architecture.run(architecture.base()))


def _biases(method: Method, architecture: Architecture, bias: str) -> None:
    """They train, and travel with the adapter."""
    model = method.adapted(architecture, bias=bias)
    names = {n for n, _ in model.named_parameters() if n.split(".")[-1] == "bias"}
    if bias == "own":
        names = {n for n in names if n.endswith(".base_layer.bias")}
    extra = {n for n, p in model.named_parameters() if p.requires_grad} - set(method.tensors(model))
    assert {n for n in extra if "modules_to_save" not in n} == {
        n for n in names if "original_module" not in n and "modules_to_save" not in n
    }
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).add_(0.5)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        assert_equal(architecture.run(PeftModel.from_pretrained(architecture.base(), folder)), architecture.run(model))


@operation()
def all_biases_train_and_travel(method: Method, architecture: Architecture) -> None:
    _biases(method, architecture, "all")


@operation()
def biases_of_adapted_layers_train_and_travel(method: Method, architecture: Architecture) -> None:
    _biases(method, architecture, "own")


@operation()
def an_injected_adapter_travels_as_a_state_dict(method: Method, architecture: Architecture) -> None:
    config = method.config(architecture, task_type=None)
    model = method.randomise(inject_adapter_in_model(config, architecture.base())).eval()
    assert_equal(architecture.run(model), architecture.run(method.adapted(architecture)))
    state = get_peft_model_state_dict(model)
    for fast in (False, True):
        other = inject_adapter_in_model(copy.deepcopy(config), architecture.base(), low_cpu_mem_usage=fast).eval()
        result = set_peft_model_state_dict(other, state, low_cpu_mem_usage=fast)
        assert not result.unexpected_keys
        assert_equal(architecture.run(other), architecture.run(model))


@operation(has("transformers"))
def transformers_adds_disables_and_enables_an_adapter(method: Method, architecture: Architecture) -> None:
    model, plain = architecture.base(), architecture.run(architecture.base())
    model.add_adapter(method.config(architecture, task_type=None), adapter_name="one")
    expected = architecture.run(method.randomise(model).eval())
    assert_differ(expected, plain)
    assert model.active_adapters() == ["one"]
    model.disable_adapters()
    assert_equal(architecture.run(model), plain)
    model.enable_adapters()
    assert_equal(architecture.run(model), expected)


@operation(has("transformers"))
def transformers_saves_and_loads_an_adapter(method: Method, architecture: Architecture) -> None:
    model = architecture.base()
    model.add_adapter(method.config(architecture, task_type=None))
    expected = architecture.run(method.randomise(model).eval())
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = architecture.base()
        loaded.load_adapter(folder)
    assert_equal(architecture.run(loaded.eval()), expected)


@operation(has("transformers"))
def transformers_loads_what_peft_saved(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = architecture.base()
        loaded.load_adapter(folder)
    assert_equal(architecture.run(loaded.eval()), architecture.run(model))


@operation(has("transformers"))
def transformers_switches_and_deletes_adapters(method: Method, architecture: Architecture) -> None:
    model, seen = architecture.base(), {}
    for seed, name in enumerate(("one", "two")):
        model.add_adapter(method.config(architecture, task_type=None), adapter_name=name)
        method.randomise(model, seed, name).eval()
        seen[name] = architecture.run(model)
    assert_differ(seen["one"], seen["two"])
    model.set_adapter("one")
    assert_equal(architecture.run(model), seen["one"])
    model.delete_adapter("two")
    assert not method.tensors(model, "two")
    assert_equal(architecture.run(model), seen["one"])
    model.delete_adapter("one")
    assert_equal(architecture.run(model), architecture.run(architecture.base()))


def _through_torch(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def _copied(method: Method, architecture: Architecture, travel: Callable[[nn.Module], nn.Module]) -> None:
    """The copy says the same, and is a model of its own."""
    model = method.adapted(architecture)
    expected = architecture.run(model)
    other = travel(model)
    assert_equal(architecture.run(other), expected)
    assert_differ(architecture.run(method.randomise(other, seed=9)), expected)
    assert_equal(architecture.run(model), expected)


@operation()
def a_deep_copy_is_a_model_of_its_own(method: Method, architecture: Architecture) -> None:
    _copied(method, architecture, copy.deepcopy)


@operation()
def a_pickled_model_is_a_model_of_its_own(method: Method, architecture: Architecture) -> None:
    _copied(method, architecture, lambda model: pickle.loads(pickle.dumps(model)))


@operation()
def a_model_saved_by_torch_is_a_model_of_its_own(method: Method, architecture: Architecture) -> None:
    _copied(method, architecture, _through_torch)


@operation()
def keys_of_an_older_base_are_mapped_while_loading(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = Path(folder, "adapter_model.safetensors")
        now, before = f".{architecture.blocks}.", ".former."
        save_file({key.replace(now, before): tensor for key, tensor in load_file(file).items()}, file)
        mapping = {re.escape(before): now}
        loaded = PeftModel.from_pretrained(architecture.base(), folder, key_mapping=mapping)
    assert_equal(architecture.run(loaded), architecture.run(model))


@operation()
def peft_converts_the_adapter_to_lora(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    config, state = convert_to_lora(model, rank=RANK)
    lora = get_peft_model(architecture.base(), config).eval()
    assert not set_peft_model_state_dict(lora, state).unexpected_keys
    assert_close(architecture.run(lora), architecture.run(model), 1e-4)


@operation()
def peft_saves_the_adapter_as_lora(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    with TemporaryDirectory() as folder:
        save_as_lora(folder, model, rank=RANK)
        lora = PeftModel.from_pretrained(architecture.base(), folder).eval()
    assert type(lora.peft_config["default"]).__name__ == "LoraConfig"
    assert_close(architecture.run(lora), architecture.run(model), 1e-4)


@operation()
def an_adapter_is_swapped_in_place(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture, seed=5)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        host = method.adapted(architecture, seed=6)
        hotswap_adapter(host, folder, adapter_name="default")
    assert_equal(architecture.run(host), architecture.run(model))


@operation()
def one_of_two_adapters_is_saved_as_a_pickle(method: Method, architecture: Architecture) -> None:
    model = method.two(architecture)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, selected_adapters=["two"], safe_serialization=False)
        assert [path.name for path in Path(folder).iterdir() if path.is_dir()] == ["two"]
        loaded = PeftModel.from_pretrained(architecture.base(), Path(folder, "two"))
    model.set_adapter("two")
    assert_equal(architecture.run(loaded), architecture.run(model))
