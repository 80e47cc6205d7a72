"""Linear layers: torch's, quantised ones, and transformers' Conv1D."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..functional import gated_update
from ..style import StyleCode
from .layer import StyleLayer


class StyleLinear(StyleLayer):
    """h = W x + s * B diag(g) A x with A [r, d_in] and B [d_out, r]."""

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
