"""Operations that style adapters alone have: one style a row, strengths, mixtures."""

import torch
from peft import PeftConfig, get_peft_model

from style_adapter import OFF, styled, styles_of

from .architectures import ROWS, Architecture
from .cases import has, operation
from .methods import Method, assert_close, assert_differ, assert_equal
from .running import LONG, prompts, same_checkpointed
from .switching import row_of

STYLES = ["pirate", "modern", "kjv"]


@operation(ours=True)
def rows_in_their_styles_equal_the_rows_alone(method: Method, architecture: Architecture) -> None:
    model, inputs = method.adapted(architecture), architecture.inputs(ROWS)
    together = architecture.run(model, inputs, styles=STYLES)
    for row, style in enumerate(STYLES):
        assert_close(together[row : row + 1], architecture.run(model, row_of(inputs, row), styles=style))
    assert_differ(together, architecture.run(model, inputs, styles="modern"))


@operation(ours=True)
def strength_zero_is_the_base(method: Method, architecture: Architecture) -> None:
    model = method.adapted(architecture)
    plain = architecture.run(architecture.base())
    for spec in (OFF, 0 * styles_of(model)["kjv"]):
        assert_equal(architecture.run(model, styles=spec), plain)


@operation(ours=True)
def strength_zero_in_each_row_is_the_base(method: Method, architecture: Architecture) -> None:
    model, bank = method.adapted(architecture), styles_of(method.adapted(architecture))
    plain = architecture.run(architecture.base())
    assert_equal(architecture.run(model, styles=[OFF, 0 * bank["kjv"], 0.0 * bank["pirate"]]), plain)


@operation(ours=True)
def a_mixture_is_the_sum_of_the_updates_by_hand(method: Method, architecture: Architecture) -> None:
    model, plain = method.adapted(architecture), architecture.base()
    mixture = {"modern": 0.7, "kjv": -0.5, "pirate": 1.2}
    with torch.no_grad():
        for style, weight in mixture.items():
            with styled(model, style):
                for name, layer in method.layers(model).items():
                    base = plain.get_submodule(name).weight
                    base += weight * layer.get_delta_weight("default")
    assert_close(architecture.run(model, styles=mixture), architecture.run(plain))


@operation(has("checkpointing"), ours=True)
def reentrant_checkpointing_sees_the_rows_styles(method: Method, architecture: Architecture) -> None:
    same_checkpointed(method, architecture, True, styles=STYLES)


@operation(has("checkpointing"), ours=True)
def checkpointing_sees_the_rows_styles(method: Method, architecture: Architecture) -> None:
    same_checkpointed(method, architecture, False, styles=STYLES)


@operation(lambda a: a.generates, ours=True)
def generated_rows_in_their_styles_equal_the_rows_alone(method: Method, architecture: Architecture) -> None:
    model, inputs = method.adapted(architecture), prompts(architecture)
    for options in ({}, {"num_beams": 2, "num_return_sequences": 2}):
        together = model.generate(**inputs, **LONG, **options, styles=STYLES)
        count = len(together) // ROWS
        for row, style in enumerate(STYLES):
            alone = model.generate(**row_of(inputs, row), **LONG, **options, styles=style)
            assert_equal(together[count * row : count * (row + 1)], alone)


def _rows_alone(method: Method, architecture: Architecture, config: PeftConfig) -> None:
    """One style a row with another config."""
    model = method.randomise(get_peft_model(architecture.base(), config)).eval()
    inputs = architecture.inputs(ROWS)
    together = architecture.run(model, inputs, styles=STYLES)
    for row, style in enumerate(STYLES):
        assert_close(together[row : row + 1], architecture.run(model, row_of(inputs, row), styles=style))


@operation(lambda a: a.embedding is not None, ours=True)
def embedded_rows_in_their_styles_equal_the_rows_alone(method: Method, architecture: Architecture) -> None:
    _rows_alone(method, architecture, method.config(architecture, target_modules=[architecture.embedding]))


@operation(lambda a: a.conv is not None, ours=True)
def convolved_rows_in_their_styles_equal_the_rows_alone(method: Method, architecture: Architecture) -> None:
    _rows_alone(method, architecture, method.config(architecture, target_modules=[architecture.conv]))


@operation(lambda a: a.name == "torch_attention", ours=True)
def attending_rows_in_their_styles_equal_the_rows_alone(method: Method, architecture: Architecture) -> None:
    _rows_alone(method, architecture, method.config(architecture, target_modules=["attention"]))


@operation(has("transformers"), ours=True)
def rows_equal_the_rows_alone_with_every_linear_layer(method: Method, architecture: Architecture) -> None:
    _rows_alone(method, architecture, method.all_linear(architecture))
