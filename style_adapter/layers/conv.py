"""Convolutions of one, two or three dimensions, with groups, dilation and any padding."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..functional import delta_weight
from ..style import StyleCode
from .layer import StandIn


class StyleConv(StandIn):
    """h = W * x + s * B * diag(g) (A * x): A a convolution like the base to r channels, B one of width 1 to d_out.

    With groups both factors are grouped as the base is: A [r, d_in / groups, *kernel], B [d_out, r / groups, 1...], so
    that dW has the shape of the base weight and merges exactly.
    """

    def _make_factors(self, r: int) -> tuple[nn.Module, nn.Module]:
        """A, then B: equal seeds give LoRA's own A where there is one group."""
        base: nn.Conv2d = self.get_base_layer()  # type: ignore[assignment]  # or 1d, or 3d
        if r % base.groups:
            raise ValueError(
                f"r={r} must be a multiple of groups={base.groups} of the convolution {self.key}; choose another rank "
                "with rank_pattern, or leave the layer out of target_modules"
            )
        kind = next(cls for cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(base, cls))
        a = kind(
            base.in_channels,
            r,
            base.kernel_size,  # type: ignore[arg-type]  # as the base has it
            base.stride,  # type: ignore[arg-type]
            base.padding,  # type: ignore[arg-type]
            base.dilation,  # type: ignore[arg-type]
            base.groups,
            bias=False,
            padding_mode=base.padding_mode,
        )
        return a, kind(r, base.out_channels, 1, groups=base.groups, bias=False)

    def _update(
        self, adapter: str, code: StyleCode, x: Float[Tensor, "..."], *args: Any, **kwargs: Any
    ) -> Float[Tensor, "..."]:
        """s * B * diag(g) (A * x) of one adapter, for x [batch, d_in, *space] or one image [d_in, *space]."""
        a, b = self._table("A")[adapter], self._table("B")[adapter]
        space = self._weight("A", adapter).dim() - 2
        batched = x.dim() == space + 2
        gate = self._scaled_gate(adapter, code, x.shape[0] if batched else 1)
        middle = a(self._table("dropout")[adapter](self._cast_to(adapter, x)))
        shape = (gate.shape[0], -1, *(1,) * space)[0 if batched else 1 :]
        return b(middle * gate.to(middle.dtype).view(shape))

    def _delta(self, adapter: str, gate: Float[Tensor, " r"]) -> Tensor:
        """dW [d_out, d_in / groups, *kernel]: one product a group."""
        base: nn.Conv2d = self.get_base_layer()  # type: ignore[assignment]
        factors = (self._weight("A", adapter).flatten(1), self._weight("B", adapter).flatten(1), gate)
        groups = zip(*(factor.chunk(base.groups) for factor in factors), strict=True)
        deltas = [delta_weight(a, b, g.to(b.device, b.dtype), self.scaling[adapter]) for a, b, g in groups]
        return torch.cat(deltas).view(base.weight.shape)
