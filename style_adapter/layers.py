"""The adapted layers: one class a kind of base layer, dispatched from a table, thin over `functional.py`."""

import math
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from ._peft import (
    PREFIX,
    BaseTunerLayer,
    check_adapters_to_merge,
    features_of,
    resolve_quantization_backend,
)
from .config import StyleAdapterConfig
from .functional import delta_weight, gated_update, style_gate
from .style import StyleCode, StyleContext


class StyleLayer(BaseTunerLayer):
    """What every adapted layer has, whatever its base: factors, gate tables, merge.

    Invariants: `A` [r, d_in] and `B` [d_out, r] are shared by all styles of an adapter; the tables `gate`
    [n_styles, r], `feature` [style_dim, r] and `noise` [noise_dim, r] make the gate
    g = sum_m w_m * gate[id_m] + f @ feature + z @ noise. A merge keeps the gate it used, so that unmerge subtracts
    exactly that.
    """

    adapter_layer_names: tuple[str, ...] = tuple(PREFIX + n for n in ("A", "B", "gate", "feature", "noise"))
    other_param_names: tuple[str, ...] = ("r", "alpha", "scaling", PREFIX + "dropout", "merged_gates")

    def __init__(self, base_layer: nn.Module, context: StyleContext, **kwargs: Any) -> None:
        """Wraps `base_layer`, without adapters yet."""
        self.base_layer = base_layer
        self.style_context = context
        self.quantization_backend = resolve_quantization_backend(self.get_base_layer(), **kwargs)
        self.r: dict[str, int] = {}
        self.alpha: dict[str, float] = {}
        self.scaling: dict[str, float] = {}
        self.merged_gates: dict[str, Tensor] = {}
        for name in (*self.adapter_layer_names, PREFIX + "dropout"):
            setattr(self, name, nn.ModuleDict())
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.cast_input_dtype_enabled = True
        self.in_features, self.out_features = features_of(self.get_base_layer())

    def update_layer(
        self, adapter_name: str, config: StyleAdapterConfig, *, r: int, alpha: float, inference_mode: bool = False
    ) -> None:
        """Adds the adapter `adapter_name` of rank `r`, or replaces it, on the device of the base layer."""
        self.r[adapter_name], self.alpha[adapter_name] = r, alpha
        self.scaling[adapter_name] = alpha / (math.sqrt(r) if config.use_rslora else r)
        self._table("dropout")[adapter_name] = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self._table("A")[adapter_name] = nn.Linear(self.in_features, r, bias=False)
        self._table("B")[adapter_name] = nn.Linear(r, self.out_features, bias=False)
        for name, rows in (("gate", len(config.styles)), ("feature", config.style_dim), ("noise", config.noise_dim)):
            if adapter_name in self._table(name):
                del self._table(name)[adapter_name]
            if rows:  # no empty tables: every trainable tensor gets a gradient
                # no random number is drawn here, so that equal seeds give LoRA's own A
                self._table(name)[adapter_name] = nn.Embedding.from_pretrained(torch.empty(rows, r), freeze=False)
        self.reset_parameters(adapter_name, config.init_weights)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def reset_parameters(self, adapter_name: str, init_weights: bool) -> None:
        """A as in LoRA; B = 0, gates 1, features and noise 0, or all at random where `init_weights` is False.

        With gates 1 an adapter of one style is LoRA; with B = 0 training starts at the frozen backbone.
        """
        nn.init.kaiming_uniform_(self._weight("A", adapter_name), a=math.sqrt(5))
        if init_weights:
            nn.init.zeros_(self._weight("B", adapter_name))
        else:
            nn.init.kaiming_uniform_(self._weight("B", adapter_name), a=math.sqrt(5))
        for name, start in (("gate", 1.0), ("feature", 0.0), ("noise", 0.0)):
            if adapter_name in self._table(name):
                table = self._weight(name, adapter_name)
                nn.init.constant_(table, start) if init_weights else nn.init.normal_(table)

    def _table(self, name: str) -> nn.ModuleDict:
        """The modules named `name`, by adapter."""
        return getattr(self, PREFIX + name)

    def _weight(self, name: str, adapter: str) -> Tensor:
        """One tensor of one adapter."""
        return self._table(name)[adapter].weight  # type: ignore[return-value]  # torch types it Tensor | Module

    @property
    def adapter_device(self) -> torch.device | None:
        """Where the adapters are; None without adapters."""
        return next((parameter.device for parameter in self._table("A").parameters()), None)

    def gate(self, adapter: str, code: StyleCode) -> Float[Tensor, "rows r"]:
        """g = sum_m w_m * gate[id_m] + f @ feature + z @ noise, for the rows of `code`."""
        gate = style_gate(code.ids, code.weights, self._weight("gate", adapter))
        for name, given in (("feature", code.features), ("noise", code.noise)):
            if given is not None and adapter in self._table(name):
                table = self._weight(name, adapter)
                gate = gate + given.to(table.device, table.dtype) @ table
        return gate

    def gate_for(self, adapter: str, code: StyleCode, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "rows r"]:
        """The gate for the input x: one row for all, one a row of x, or each repeated by `generate`.

        Raises:
            ValueError: The input has neither as many rows as the code nor that times `generate`'s factor.
        """
        gate, batch = self.gate(adapter, code), x.shape[0] if x.dim() > 1 else 1
        if gate.shape[0] in (1, batch):
            return gate
        if gate.shape[0] * code.repeats == batch:
            return gate.repeat_interleave(code.repeats, dim=0)
        raise ValueError(
            f"styles: {gate.shape[0]} styles for a batch of {batch} rows; give one style for the batch or exactly "
            f"{batch}, one a row"
        )

    def fixed_gate(self, adapter: str, code: StyleCode | None = None) -> Float[Tensor, " r"]:
        """The gate of the one style in force (or of `code`): what merge and export freeze.

        Raises:
            ValueError: Different styles are in force for the rows of a batch.
        """
        weight = self._weight("gate", adapter)
        code = code or self.style_context.code(adapter, weight.device)
        if code is None:  # OFF
            return weight.new_zeros(weight.shape[1])
        gate = self.gate(adapter, code.to(weight.device))
        if gate.shape[0] != 1:
            raise ValueError(
                f"styles: {gate.shape[0]} styles must be 1 to merge or export; choose one style or mixture"
            )
        return gate[0]

    def get_delta_weight(self, adapter: str, code: StyleCode | None = None) -> Float[Tensor, "d_out d_in"]:
        """dW of the style in force (or of `code`), in the shape of the base weight."""
        return self._delta(adapter, self.fixed_gate(adapter, code))

    def _delta(self, adapter: str, gate: Float[Tensor, " r"]) -> Tensor:
        """dW of one gate, transposed where the base keeps its weight as [d_in, d_out]."""
        a, b = self._weight("A", adapter), self._weight("B", adapter)
        delta = delta_weight(a, b, gate.to(b.device, b.dtype), self.scaling[adapter])
        return delta.T if isinstance(self.get_base_layer(), Conv1D) else delta

    def check_mergeable(self) -> None:
        """Refuses a base weight that can no longer be read.

        Raises:
            ValueError: bitsandbytes has repacked the 4-bit weight for inference on the CPU; read as a plain 4-bit
                weight it is garbage.
        """
        if is_packed(self.get_base_layer()):
            raise ValueError(
                "merge: the 4-bit base weight must not be repacked, and a forward pass in eval mode on the CPU did "
                "that; load the base unquantised and merge there, or export the style with export_lora"
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

    def unmerge(self) -> None:
        """Subtracts exactly what the merges added."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
        while self.merged_adapters:
            adapter = self.merged_adapters.pop()
            weight = self.get_base_weight()
            delta = self._delta(adapter, self.merged_gates.pop(adapter)).detach()
            self.set_base_weight((weight - delta.to(weight.dtype)).to(weight.dtype))

    def delete_adapter(self, adapter_name: str) -> None:
        """Removes the adapter from this layer, and its styles from those that can be named."""
        super().delete_adapter(adapter_name)
        self.style_context.banks.pop(adapter_name, None)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """A fixed style is additive, W + dW: PEFT can convert it."""
        return True


class StyleLinear(nn.Module, StyleLayer):
    """h = W x + s * B diag(g) A x on a Linear layer, quantised or not, or on transformers' Conv1D."""

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: StyleAdapterConfig,
        *,
        context: StyleContext,
        r: int,
        alpha: float,
        **kwargs: Any,
    ) -> None:
        """Wraps `base_layer` with its first adapter."""
        super().__init__()
        StyleLayer.__init__(self, base_layer, context, **kwargs)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, r=r, alpha=alpha, inference_mode=config.inference_mode)

    def forward(self, x: Float[Tensor, "*batch d_in"], *args: Any, **kwargs: Any) -> Float[Tensor, "*batch d_out"]:
        """The base layer's output plus the update of each active adapter, in the base layer's dtype."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for adapter in self.active_adapters:
            if adapter in self._table("A"):
                code = self.style_context.code(adapter, x.device)
                if code is not None:
                    result = result + self._update(adapter, code, x).to(result.dtype)
        return result

    def _update(self, adapter: str, code: StyleCode, x: Tensor) -> Tensor:
        """s * B diag(g) A x of one adapter."""
        a, b = self._weight("A", adapter), self._weight("B", adapter)
        gate = self.gate_for(adapter, code, x) * self.scaling[adapter]
        if not torch.is_autocast_enabled(x.device.type):  # autocast casts the products itself
            x = self._cast_input_dtype(x, a.dtype)
        return gated_update(self._table("dropout")[adapter](x), a, b, gate)

    def __repr__(self) -> str:
        """The name with the method in front, as PEFT's layers print."""
        return "style_adapter." + super().__repr__()


LAYER_CLASSES: dict[type[nn.Module], type[StyleLinear]] = {nn.Linear: StyleLinear, Conv1D: StyleLinear}
QUANTISED_CLASSES: dict[str, type[StyleLinear]] = {"linear": StyleLinear}


def is_packed(base_layer: nn.Module) -> bool:
    """Whether bitsandbytes has repacked the 4-bit weight for the CPU, as its first forward in eval mode does."""
    state = getattr(getattr(base_layer, "weight", None), "quant_state", None)
    return bool(getattr(state, "packing_format_for_cpu", False))


def keep_unpacked(model: nn.Module) -> None:
    """Forbids bitsandbytes to repack 4-bit weights on the CPU: no gradient would pass them any more, nor a merge.

    Raises:
        ValueError: It was done already.
    """
    for module in model.modules():
        if is_packed(module):
            raise ValueError(
                "model: its 4-bit weights must not be repacked for a trainable adapter, and a forward pass in eval "
                "mode on the CPU did that; load the model anew, or set inference_mode=True to run the adapter only"
            )
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # a bool of bitsandbytes' layer


def layer_class(target: nn.Module, **kwargs: Any) -> type[StyleLinear]:
    """The class that adapts `target`.

    Raises:
        ValueError: No class for its type; the message lists the known ones.
    """
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    backend = resolve_quantization_backend(base, **kwargs)
    if backend is not None and backend.layer_type in QUANTISED_CLASSES:
        return QUANTISED_CLASSES[backend.layer_type]
    if isinstance(base, NonDynamicallyQuantizableLinear):
        raise ValueError(
            "target_modules matched the out_proj of a MultiheadAttention, which must not be adapted: its forward is "
            "never called, so the adapter would never train; name it in exclude_modules"
        )
    for base_type, cls in LAYER_CLASSES.items():
        if isinstance(base, base_type):
            return cls
    known = ", ".join(t.__name__ for t in LAYER_CLASSES)
    raise ValueError(
        f"target_modules matched {type(base).__name__}, which must be one of {known}; leave it out of target_modules"
    )
