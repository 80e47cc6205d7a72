"""Operations on other kinds of layers than linear ones: embeddings, convolutions, torch's attention."""

from tempfile import TemporaryDirectory
from typing import Any

from peft import PeftModel, get_peft_model

from .architectures import Architecture
from .cases import has, operation
from .methods import Method, assert_close, assert_differ, assert_equal
from .running import train


def _starts_and_trains(method: Method, architecture: Architecture, **options: Any) -> None:
    model = get_peft_model(architecture.base(), method.config(architecture, **options))
    assert method.layers(model)
    assert_close(architecture.run(model.eval()), architecture.run(architecture.base()), 1e-6)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert train(architecture, model.train()) == trainable


def _travels(method: Method, architecture: Architecture, **options: Any) -> None:
    model = method.adapted(architecture, **options)
    expected = architecture.run(model)
    assert_differ(expected, architecture.run(architecture.base()))
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        assert_equal(architecture.run(PeftModel.from_pretrained(architecture.base(), folder)), expected)
    with model.disable_adapter():
        assert_close(architecture.run(model), architecture.run(architecture.base()))


def _merges(method: Method, architecture: Architecture, **options: Any) -> None:
    model = method.adapted(architecture, **options)
    expected = architecture.run(model)
    model.merge_adapter()
    assert_close(architecture.run(model), expected)
    model.unmerge_adapter()
    assert_close(architecture.run(model), expected)
    merged = model.merge_and_unload(safe_merge=True)
    assert_close(architecture.run(merged), expected)
    assert set(merged.state_dict()) == set(architecture.base().state_dict())


def _has_embedding(architecture: Architecture) -> bool:
    return architecture.embedding is not None


def _has_conv(architecture: Architecture) -> bool:
    return architecture.conv is not None


def _has_attention(architecture: Architecture) -> bool:
    return architecture.name == "torch_attention"


@operation(_has_embedding)
def an_embedding_starts_at_the_base_and_trains(method: Method, architecture: Architecture) -> None:
    _starts_and_trains(method, architecture, target_modules=[architecture.embedding])


@operation(_has_embedding)
def an_adapted_embedding_travels(method: Method, architecture: Architecture) -> None:
    _travels(method, architecture, target_modules=[architecture.embedding])


@operation(lambda a: _has_embedding(a) and "tied" not in a.traits)
def an_adapted_embedding_merges(method: Method, architecture: Architecture) -> None:
    _merges(method, architecture, target_modules=[architecture.embedding])


@operation(has("tied"))
def a_tied_embedding_adapts_the_words_alone(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture, target_modules=[architecture.embedding])
    base = model.get_base_model()
    assert base.get_output_embeddings().weight is base.get_input_embeddings().weight
    with model.disable_adapter():
        assert_equal(architecture.run(model), architecture.run(architecture.base()))
    assert_differ(architecture.run(model), architecture.run(architecture.base()))


@operation(_has_conv)
def a_convolution_starts_at_the_base_and_trains(method: Method, architecture: Architecture) -> None:
    _starts_and_trains(method, architecture, target_modules=[architecture.conv])


@operation(_has_conv)
def an_adapted_convolution_travels(method: Method, architecture: Architecture) -> None:
    _travels(method, architecture, target_modules=[architecture.conv])


@operation(_has_conv)
def an_adapted_convolution_merges(method: Method, architecture: Architecture) -> None:
    _merges(method, architecture, target_modules=[architecture.conv])


def _has_parameters(architecture: Architecture) -> bool:
    return bool(architecture.parameters)


def _parameters(architecture: Architecture) -> dict[str, Any]:
    return {"target_modules": [], "target_parameters": list(architecture.parameters), "task_type": None}


@operation(_has_parameters)
def adapted_parameters_start_at_the_base_and_train(method: Method, architecture: Architecture) -> None:
    _starts_and_trains(method, architecture, **_parameters(architecture))


@operation(_has_parameters)
def adapted_parameters_travel(method: Method, architecture: Architecture) -> None:
    _travels(method, architecture, **_parameters(architecture))


@operation(_has_parameters)
def adapted_parameters_merge(method: Method, architecture: Architecture) -> None:
    _merges(method, architecture, **_parameters(architecture))


@operation(_has_attention)
def torchs_attention_starts_at_the_base_and_trains(method: Method, architecture: Architecture) -> None:
    _starts_and_trains(method, architecture, target_modules=["attention"])


@operation(_has_attention)
def torchs_adapted_attention_travels(method: Method, architecture: Architecture) -> None:
    _travels(method, architecture, target_modules=["attention"])


@operation(_has_attention)
def torchs_adapted_attention_merges(method: Method, architecture: Architecture) -> None:
    _merges(method, architecture, target_modules=["attention"])
