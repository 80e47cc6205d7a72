"""What the tests of other people's tools share."""

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def peer(name: str) -> ModuleType:
    """The package `name`, else the test is skipped; what it warns of while it is imported is its makers' business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def gates(model: nn.Module) -> dict[str, Tensor]:
    """A copy of each layer's gate table [styles, r], by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if "style_adapter_gate" in name}


def moved_rows(model: nn.Module, before: dict[str, Tensor]) -> set[int]:
    """Rows of the gate tables, numbers of styles, that are not bitwise what they were in any layer."""
    changed = [(gates(model)[name] != table).any(dim=1) for name, table in before.items()]
    return set(torch.stack(changed).any(dim=0).nonzero().flatten().tolist())


def trained_rows(model: nn.Module, train: Callable[[], Any]) -> set[int]:
    """The styles whose gates `train` moves."""
    before = gates(model)
    train()
    return moved_rows(model, before)
