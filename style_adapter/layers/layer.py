"""What every adapted layer does, whatever its base: run, merge a style into the base weight, take it out again."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._peft import check_adapters_to_merge
from ..functional import delta_weight
from ..style import StyleCode
from .packed import KeptWeight, is_packed
from .tables import GatedFactors


class StyleLayer(GatedFactors):
    """A base layer plus one low-rank update an adapter, gated by the style in force.

    A subclass says what its base layer is: it makes the factors, and computes the update. Invariant: a merge keeps
    the gate it used, so that unmerge subtracts exactly that.
    """

    def running(self, device: torch.device) -> Iterator[tuple[str, StyleCode]]:
        """The adapters that this layer has to run, each with its code; without those that are OFF."""
        for adapter in self.style_context.adapters(self.active_adapters):
            if adapter in self._table("A"):
                code = self.style_context.code(adapter, device)
                if code is not None:
                    yield adapter, code

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus the update of each running adapter, in the base layer's dtype."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for adapter, code in self.running(x.device):
            result = result + self._update(adapter, code, x, *args, **kwargs).to(result.dtype)
        return result

    def _update(self, adapter: str, code: StyleCode, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """s * B diag(g) A x of one adapter; what else the base layer was given is of use to few."""
        raise NotImplementedError

    def _scaled_gate(self, adapter: str, code: StyleCode, batch: int) -> Float[Tensor, "rows r"]:
        """s * g: the scaling costs r numbers a row there, and d_out anywhere else."""
        return self.gate_for(adapter, code, batch) * self.scaling[adapter]

    def _cast_to(self, adapter: str, x: Tensor) -> Tensor:
        """`x` in the dtype of the factors; autocast casts the products itself."""
        if torch.is_autocast_enabled(x.device.type):
            return x
        return self._cast_input_dtype(x, self._weight("A", adapter).dtype)

    def get_delta_weight(self, adapter: str, code: StyleCode | None = None) -> Tensor:
        """dW of the style in force (or of `code`), in the shape of the base weight."""
        return self._delta(adapter, self.fixed_gate(adapter, code))

    def _delta(self, adapter: str, gate: Tensor) -> Tensor:
        """dW = s * B diag(g) A of one gate [r], in the shape of the base weight."""
        a, b = self._weight("A", adapter), self._weight("B", adapter)
        return delta_weight(a, b, gate.to(b.device, b.dtype), self.scaling[adapter])

    def check_mergeable(self) -> None:
        """Refuses a base weight that cannot be read or written.

        Raises:
            ValueError: bitsandbytes has repacked the 4-bit weight for inference on the CPU; read as a plain 4-bit
                weight it is garbage. Or PEFT has no way to write weights of this quantisation.
        """
        if is_packed(self.get_base_layer()):
            raise ValueError(
                "merge: the 4-bit base weight must not be repacked, and a forward pass in eval mode on the CPU did "
                "that; load the base unquantised and merge there, or export the style with export_lora"
            )
        backend = self.quantization_backend
        if backend is not None and not backend.supports_merge:
            raise ValueError(
                f"merge: the base weight must not be quantised by {backend.backend_name}, which cannot be written; "
                "load the base unquantised and merge there, or export the style with export_lora"
            )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds dW of the style in force to the base weight, adapter by adapter, and keeps the gate it used.

        Raises:
            ValueError: A batch of different styles is in force, the base weight cannot be read, or `safe_merge` found
                a weight that is not finite.
        """
        self.check_mergeable()
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter not in self._table("A"):
                continue
            gate = self.fixed_gate(adapter).detach().clone()
            weight = self.get_base_weight()
            merged = (weight + self._delta(adapter, gate).detach().to(weight.dtype)).to(weight.dtype)
            if safe_merge and not torch.isfinite(merged).all():
                raise ValueError(f"adapter {adapter!r}: merged weights must be finite; the adapter seems broken")
            self.set_base_weight(merged)
            self.merged_gates[adapter] = gate
            self.merged_adapters.append(adapter)
            self.style_context.note_change()

    def unmerge(self) -> None:
        """Subtracts exactly what the merges added."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
        while self.merged_adapters:
            adapter = self.merged_adapters.pop()
            weight = self.get_base_weight()
            delta = self._delta(adapter, self.merged_gates.pop(adapter)).detach()
            self.set_base_weight((weight - delta.to(weight.dtype)).to(weight.dtype))
            self.style_context.note_change()

    def set_base_weight(self, weight_data: Tensor) -> None:
        """Replaces the base weight; one that is shared or rounded is kept aside, and comes back when unmerged."""
        base: Any = self.get_base_layer()
        if self._kept is not None and not self.merged_adapters:  # the last one is taken out
            kept, self._kept = self._kept, None
            if kept.belongs_to(base):
                kept.restore(base)
                return
        rounds = self.quantization_backend is not None
        if self._kept is None and (self.unties or (rounds and hasattr(base, "weight"))):
            self._kept = KeptWeight.of(base)
        if self.unties and not rounds:
            base.weight = nn.Parameter(weight_data, requires_grad=base.weight.requires_grad)
        else:
            super().set_base_weight(weight_data)

    def set_scale(self, adapter: str, scale: float) -> None:
        """The update of `adapter` times `scale`, whatever it was before: the weights of diffusers' `set_adapters`."""
        if adapter in self.scaling:
            self._rescale(adapter, scale * self.full_scaling[adapter])

    def scale_layer(self, scale: float) -> None:
        """The updates of the active adapters times `scale`: the `scale` of one call of diffusers."""
        for adapter in self.scaling.keys() & set(self.active_adapters):
            self._rescale(adapter, scale * self.scaling[adapter])

    def unscale_layer(self, scale: float | None = None) -> None:
        """Takes `scale` back, or all that was set."""
        for adapter in self.scaling.keys() & set(self.active_adapters):
            self._rescale(adapter, self.full_scaling[adapter] if scale is None else self.scaling[adapter] / scale)

    def _rescale(self, adapter: str, scaling: float) -> None:
        """Another s.

        Raises:
            ValueError: The adapter is merged with the present one, which unmerging has to subtract.
        """
        if adapter in self.merged_adapters and scaling != self.scaling[adapter]:
            raise ValueError(
                f"scale: adapter {adapter!r} must not be merged, and {self.key} has it merged with another scale; call "
                "unmerge_adapter() first, or unfuse_lora() in diffusers"
            )
        self.scaling[adapter] = scaling

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """A fixed style is additive, W + dW: PEFT can convert it."""
        return True

    def __repr__(self) -> str:
        """The name with the method in front, as PEFT's layers print."""
        return "style_adapter." + super().__repr__()


class StandIn(StyleLayer):
    """A layer whose users read more of its base than a result: strides, table sizes, head counts."""

    def __getattr__(self, name: str) -> Any:
        """What is not here is the base layer's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.get_base_layer(), name)
