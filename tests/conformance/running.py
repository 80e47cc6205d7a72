"""Operations that run an adapter: train, checkpoint, resize, generate."""

from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn

from .architectures import LENGTH, ROWS, VOCAB, Architecture, Inputs
from .cases import has, operation
from .methods import Method, assert_close, assert_differ, assert_equal, assert_near

LONG = {"min_new_tokens": 5, "max_new_tokens": 5, "do_sample": False}


def loss_of(architecture: Architecture, model: nn.Module, **options: Any) -> Tensor:
    """A number to lower: the output against fixed random weights."""
    output = architecture.read(model(**architecture.inputs(ROWS), **options)).float()
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(7))
    return (output * weights).mean()


def train(architecture: Architecture, model: nn.Module, steps: int = 3) -> set[str]:
    """The names of the tensors that got a gradient other than zero within so many steps of SGD."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.5)
    moved: set[str] = set()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(architecture, model).backward()
        moved |= {n for n, p in trained.items() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    return moved


def _trains(method: Method, architecture: Architecture, config: PeftConfig) -> None:
    """Every trainable tensor gets a gradient; nothing of the base moves."""
    model = get_peft_model(architecture.base(), config).train()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(method.tensors(model)) <= trainable
    assert train(architecture, model) == trainable
    for name, before in frozen.items():
        assert_equal(model.get_parameter(name).detach(), before)
    assert_differ(architecture.run(model.eval()), architecture.run(architecture.base()))


@operation()
def every_trainable_tensor_gets_a_gradient_and_the_base_none(method: Method, architecture: Architecture) -> None:
    _trains(method, architecture, method.config(architecture))


@operation(has("transformers"))
def every_linear_layer_trains(method: Method, architecture: Architecture) -> None:
    _trains(method, architecture, method.all_linear(architecture))


def _gradients(method: Method, architecture: Architecture, reentrant: bool | None, **options: Any) -> dict[str, Tensor]:
    base = architecture.base()
    if reentrant is not None:
        base.activation_checkpointing_enable({"use_reentrant": reentrant})
    model = method.randomise(get_peft_model(base, method.config(architecture))).train()
    loss_of(architecture, model, **options).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def same_checkpointed(method: Method, architecture: Architecture, reentrant: bool, **options: Any) -> None:
    """Gradients with and without checkpointing are the same."""
    plain = _gradients(method, architecture, None, **options)
    checkpointed = _gradients(method, architecture, reentrant, **options)
    assert plain
    assert plain.keys() == checkpointed.keys()
    for name, expected in plain.items():
        assert_close(checkpointed[name], expected, 1e-6)


@operation(has("checkpointing"))
def reentrant_checkpointing_gives_the_same_gradients(method: Method, architecture: Architecture) -> None:
    same_checkpointed(method, architecture, True)


@operation(has("checkpointing"))
def checkpointing_gives_the_same_gradients(method: Method, architecture: Architecture) -> None:
    same_checkpointed(method, architecture, False)


@operation(has("resize"))
def a_resized_vocabulary_leaves_the_old_words_alone(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    before = architecture.run(model)
    model.resize_token_embeddings(VOCAB + 5, mean_resizing=False)
    after = architecture.run(model)
    if architecture.generates:
        assert after.shape[-1] == VOCAB + 5
        after = after[..., :VOCAB]
    assert_close(after, before)


@operation(has("tied"))
def tied_weights_stay_tied(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    for each in (model, model.merge_and_unload()):
        assert each.get_input_embeddings().weight is each.get_output_embeddings().weight


def prompts(architecture: Architecture, rows: int = ROWS) -> Inputs:
    """What `generate` begins with."""
    return {k: v for k, v in architecture.inputs(rows).items() if not k.startswith("decoder")}


def _generates_as_by_hand(method: Method, architecture: Architecture, rows: int = ROWS, **options: Any) -> None:
    """The adapted model writes what the plain one writes whose weights hold the update."""
    model = method.adapted(architecture)
    by_hand, inputs, given = method.by_hand(architecture, model), prompts(architecture, rows), LONG | options
    expected = by_hand.generate(**inputs, **given)
    assert_equal(model.generate(**inputs, **given), expected)
    plain = architecture.base().generate(**inputs, **given)
    assert plain.shape != expected.shape or not torch.equal(plain, expected)


@operation(lambda a: a.generates)
def greedy_generation_is_that_of_the_plain_model(method: Method, architecture: Architecture) -> None:
    _generates_as_by_hand(method, architecture)


@operation(lambda a: a.generates)
def beams_are_those_of_the_plain_model(method: Method, architecture: Architecture) -> None:
    _generates_as_by_hand(method, architecture, num_beams=3)


@operation(lambda a: a.generates)
def returned_sequences_are_those_of_the_plain_model(method: Method, architecture: Architecture) -> None:
    _generates_as_by_hand(method, architecture, num_beams=4, num_return_sequences=2)


@operation(has("static"))
def a_static_cache_changes_nothing(method: Method, architecture: Architecture) -> None:
    _generates_as_by_hand(method, architecture, cache_implementation="static")


@operation(has("causal"))
def no_cache_changes_nothing(method: Method, architecture: Architecture) -> None:
    model, inputs = method.adapted(architecture), prompts(architecture)
    cached = model.generate(**inputs, **LONG)
    assert_equal(model.generate(**inputs, **LONG, use_cache=False), cached)


@operation(has("assisted"))
def an_unadapted_assistant_changes_nothing(method: Method, architecture: Architecture) -> None:
    model, inputs = method.adapted(architecture), prompts(architecture, rows=1)
    alone = model.generate(**inputs, **LONG)
    assert_equal(model.generate(**inputs, **LONG, assistant_model=architecture.base()), alone)


@operation(has("padding"))
def padding_changes_nothing(method: Method, architecture: Architecture) -> None:
    model, inputs = method.adapted(architecture), prompts(architecture)
    side = (2, 0) if "causal" in architecture.traits else (0, 2)
    padded = {name: nn.functional.pad(tensor, side) for name, tensor in inputs.items()}
    written = model.generate(**inputs, **LONG)
    start = LENGTH if "causal" in architecture.traits else 0
    assert_equal(model.generate(**padded, **LONG)[:, start + side[0] :], written[:, start:])


@operation(has("causal"))
def embeddings_in_place_of_ids_give_the_same(method: Method, architecture: Architecture) -> None:
    model, inputs = method.adapted(architecture), prompts(architecture)
    words = {"inputs_embeds": model.get_input_embeddings()(inputs.pop("input_ids"))}
    assert_close(architecture.run(model, words | inputs), architecture.run(model))


@operation()
def autocast_stays_near_fp32(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    exact = architecture.run(model)
    with torch.autocast("cpu", torch.bfloat16):
        cast = architecture.run(model).float()
    assert_near(cast, exact)
    assert_differ(cast, architecture.run(architecture.base()))
