"""Linear layers: torch's, quantised ones, and transformers' Conv1D."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from transformers.pytorch_utils import Conv1D

from ..functional import gated_linear, gated_update
from ..style import StyleCode
from .layer import StyleLayer

MANY = 64  # tokens


class StyleLinear(StyleLayer):
    """h = W x + s * B diag(g) A x with A [r, d_in] and B [d_out, r]."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus the update of each running adapter; in one go, where nothing else is to do."""
        if args or kwargs or self.disable_adapters or self.merged or not is_plain(self.base_layer) or _is_transformed():
            return super().forward(x, *args, **kwargs)
        running = [*self.running(x.device)]
        fused = self._fused(x, *running[0]) if len(running) == 1 and x.dim() > 1 and x.numel() else None
        return super().forward(x) if fused is None else fused

    def _fused(self, x: Float[Tensor, "*batch d_in"], adapter: str, code: StyleCode) -> Tensor | None:
        """W x + bias + s * B diag(g) A x of one adapter; None where the parts read different inputs."""
        base: Any = self.base_layer
        weight, bias = base.weight, base.bias
        a, b, dropout = self._weight("A", adapter), self._weight("B", adapter), self._table("dropout")[adapter]
        if x.device != a.device or _drops(dropout):
            return None
        gate, kind = self._scaled_gate(adapter, code, x.shape[0]), _dtype_of(x)
        if kind is None and not x.dtype == a.dtype == weight.dtype:
            return F.linear(x, weight, bias) + gated_update(x.to(a.dtype), a, b, gate).to(weight.dtype)
        if kind is None:
            return gated_linear(x, weight, bias, a, b, gate.to(x.dtype))
        bias = None if bias is None else bias.to(kind)
        return gated_linear(x.to(kind), weight.to(kind), bias, a.to(kind), b.to(kind), gate.to(kind))

    def _make_factors(self, r: int) -> tuple[nn.Module, nn.Module]:
        """A, then B: equal seeds give LoRA's own A."""
        return nn.Linear(self.in_features, r, bias=False), nn.Linear(r, self.out_features, bias=False)

    def _update(
        self, adapter: str, code: StyleCode, x: Float[Tensor, "*batch d_in"], *args: Any, **kwargs: Any
    ) -> Float[Tensor, "*batch d_out"]:
        """s * B diag(g) A x of one adapter."""
        gate = self._scaled_gate(adapter, code, x.shape[0] if x.dim() > 1 else 1)
        x = self._table("dropout")[adapter](self._cast_to(adapter, x))
        return gated_update(x, self._weight("A", adapter), self._weight("B", adapter), gate)

    def _delta(self, adapter: str, gate: Float[Tensor, " r"]) -> Tensor:
        """dW, transposed where the base keeps its weight as [d_in, d_out]."""
        delta = super()._delta(adapter, gate)
        return delta.T if isinstance(self.get_base_layer(), Conv1D) else delta


def is_plain(base: nn.Module) -> bool:
    """Whether to call `base` is to multiply by its frozen weight, and nothing more: no hook, no quantisation."""
    if type(base) is not nn.Linear or "forward" in vars(base):
        return False
    weight, bias = base._parameters.get("weight"), base._parameters.get("bias")  # a replica of DataParallel has none
    trains = type(weight) is not nn.Parameter or weight.requires_grad or (bias is not None and bias.requires_grad)
    hooked = base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks
    return not (trains or hooked)


def _dtype_of(x: Tensor) -> torch.dtype | None:
    """What the parts are cast to: autocast's dtype, or bfloat16 where nothing is learnt; None where they must agree.

    A bfloat16 backbone has fp32 factors, for the optimizer's sake. Without it many tokens are not worth a cast to fp32,
    which costs more than the update; autocast trained them so. Few are: a product in bfloat16 has more to prepare.
    """
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    many = x.dtype == torch.bfloat16 and x.numel() >= MANY * x.shape[-1]
    return x.dtype if many and not torch.is_grad_enabled() else None


def _drops(dropout: nn.Module) -> bool:
    """Whether the update reads another input than the base."""
    return dropout.training and isinstance(dropout, nn.Dropout)


def _is_transformed() -> bool:
    """Whether a compiler traces, which fuses by itself, or torch.func or forward derivatives want the plain parts."""
    forward_mode = forward_ad._current_level >= 0
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_mode
