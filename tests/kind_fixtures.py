"""One small model around each kind of base layer, with inputs of any number of rows, and an adapter on it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from conftest import STYLES, randomise
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from style_adapter import StyleAdapterConfig

R, ALPHA = 4, 6.0


class Around(nn.Module):
    """A model that is one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor, **kwargs: Any) -> Tensor:
        output = self.layer(*inputs, **kwargs)
        return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True)
class Kind:
    """A base layer, what it reads, and what else it is called with."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one row
    inputs: int = 1
    tokens: int = 0  # how many tokens there are, where the input is token numbers
    rows_at: int = 0  # the dimension of the rows
    lora: bool = True  # whether PEFT's LoRA adapts it exactly
    options: dict[str, Any] = field(default_factory=dict)

    def model(self, dtype: torch.dtype = torch.float64) -> Around:
        """The model without an adapter; the same weights each time."""
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return Around(self.make()).to(dtype).eval().requires_grad_(False)

    def rows(self, rows: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """The inputs of a batch."""
        generator = torch.Generator().manual_seed(3)
        shape = list(self.shape)
        shape.insert(self.rows_at, rows)
        if self.tokens:
            return [torch.randint(1, self.tokens, shape, generator=generator)]
        drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(self.inputs)]
        return [x.to(dtype) for x in drawn]

    def row(self, tensors: list[Tensor], i: int) -> list[Tensor]:
        """One row of a batch, as a batch of one."""
        return [x.narrow(self.rows_at, i, 1) for x in tensors]


def attention(**options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.MultiheadAttention(8, 2, **options)


KINDS: dict[str, Kind] = {
    "linear": Kind(lambda: nn.Linear(5, 6), (3, 5)),
    "conv1d of transformers": Kind(lambda: Conv1D(6, 5), (3, 5)),
    "embedding": Kind(lambda: nn.Embedding(7, 6, padding_idx=0), (3,), tokens=7),
    "conv1d": Kind(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 9)),
    "conv1d circular": Kind(lambda: nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"), (4, 9), lora=False),
    "conv1d depthwise": Kind(lambda: nn.Conv1d(4, 4, 3, groups=4, bias=False), (4, 9), lora=False),
    "conv2d": Kind(lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (4, 5, 6)),
    "conv2d 1x1": Kind(lambda: nn.Conv2d(4, 6, 1), (4, 3, 3)),
    "conv2d dilated": Kind(lambda: nn.Conv2d(4, 6, 3, padding="same", dilation=2), (4, 5, 6), lora=False),
    "conv2d grouped": Kind(lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 5, 6), lora=False),
    "conv3d": Kind(lambda: nn.Conv3d(2, 4, 2, padding="valid"), (2, 3, 4, 3)),
    "conv3d grouped": Kind(lambda: nn.Conv3d(2, 4, 2, 1, 1, 1, 2, padding_mode="replicate"), (2, 3, 3, 3), lora=False),
    "attention": Kind(attention(), (5, 8), inputs=3, rows_at=1),
    "attention batch first": Kind(attention(batch_first=True), (5, 8), inputs=3),
    "attention without bias": Kind(attention(bias=False, batch_first=True), (5, 8), inputs=3),
    "attention with more keys": Kind(attention(add_bias_kv=True, add_zero_attn=True), (5, 8), inputs=3, rows_at=1),
}  # fmt: skip
NAMES = tuple(KINDS)


def style_model(model: nn.Module, *, random: bool = True, **options: Any) -> PeftModel:
    """`model` with an adapter of three styles on `layer`; every tensor drawn, or as it starts."""
    defaults: dict[str, Any] = {"styles": list(STYLES), "r": R, "alpha": ALPHA, "target_modules": ["layer"]}
    adapted = get_peft_model(model, StyleAdapterConfig(**defaults | options))
    return (randomise(adapted) if random else adapted).eval()


def tensors(model: nn.Module, adapter: str = "default") -> dict[str, nn.Parameter]:
    """Every tensor of one adapter."""
    return {n: p for n, p in model.named_parameters() if "style_adapter_" in n and f".{adapter}." in n}


def twin(model: nn.Module) -> nn.Module:
    """A copy that shares nothing."""
    return copy.deepcopy(model)
