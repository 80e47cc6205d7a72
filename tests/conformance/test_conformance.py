"""Every operation on every architecture, with PEFT's LoRA as the control: what it can do, a style adapter can do.

A difference is listed in `known.py` with its reason; an unlisted one fails, and so does a listed one that is gone.
"""

from typing import Any

import pytest

from . import building, kinds, running, styling, switching, travelling  # noqa: F401 - they register operations
from .architectures import Architecture
from .cases import Operation, cases
from .known import CONTROL, DIFFERENCES, Known
from .methods import LORA, STYLE, Method

LISTS = {"lora": CONTROL, "style": DIFFERENCES}


def _known(each: Operation, method: Method, architecture: Architecture) -> Known | None:
    listed = LISTS[method.name]
    return listed.get((each.name, architecture.name)) or listed.get((each.name, "*"))


def _parameters() -> list[Any]:
    parameters = []
    for each, method, architecture in cases():
        known = _known(each, method, architecture)
        marks = [pytest.mark.xfail(raises=known.error, reason=known.reason, strict=True)] if known else []
        name = f"{each.name}-{architecture.name}-{method.name}"
        parameters.append(pytest.param(each, method, architecture, id=name, marks=marks))
    return parameters


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer:UserWarning")
@pytest.mark.filterwarnings("ignore:Converting a PEFT adapter to LoRA that is already a LoRA:UserWarning")
@pytest.mark.filterwarnings("ignore:All adapters are already merged:UserWarning")  # LoRA on MultiheadAttention
@pytest.mark.filterwarnings("ignore:Already unmerged:UserWarning")  # the same
@pytest.mark.parametrize(("each", "method", "architecture"), _parameters())
def test_operation(each: Operation, method: Method, architecture: Architecture) -> None:
    each.run(method, architecture)


@pytest.mark.parametrize("method", [LORA, STYLE], ids=lambda method: method.name)
def test_every_listed_difference_is_of_a_case_that_exists(method: Method) -> None:
    cases_of = {(each.name, architecture.name) for each, tried, architecture in cases() if tried is method}
    existing = cases_of | {(operation, "*") for operation, _ in cases_of}
    assert set(LISTS[method.name]) <= existing
