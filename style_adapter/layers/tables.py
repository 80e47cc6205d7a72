"""The tensors of an adapted layer: factors and gate tables by adapter, and the gate they make."""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from accelerate.utils import align_module_device
from jaxtyping import Float
from torch import Tensor, nn

from .._peft import PREFIX, BaseTunerLayer, features_of, resolve_quantization_backend
from ..config import StyleAdapterConfig
from ..functional import style_gate
from ..style import StyleCode, StyleContext
from .packed import KeptWeight
from .start import start_factors


class GatedFactors(nn.Module, BaseTunerLayer):
    """The factors A and B and the gate tables of each adapter, around one base layer.

    Invariants: `A` and `B` are shared by all styles of an adapter; the tables `gate` [n_styles, r], `feature`
    [style_dim, r] and `noise` [noise_dim, r] make the gate g = sum_m w_m * gate[id_m] + f @ feature + z @ noise.
    """

    adapter_layer_names: tuple[str, ...] = tuple(PREFIX + n for n in ("A", "B", "gate", "feature", "noise"))
    other_param_names: tuple[str, ...] = ("r", "alpha", "scaling", "full_scaling", PREFIX + "dropout", "merged_gates")

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: StyleAdapterConfig,
        *,
        context: StyleContext,
        key: str,
        r: int,
        alpha: float,
        **kwargs: Any,
    ) -> None:
        """Wraps `base_layer`, whose name in the model is `key`, with its first adapter."""
        super().__init__()
        self.base_layer = base_layer
        self.style_context = context
        self.key, self.number = key, context.number_of(key)
        self.quantization_kwargs = kwargs
        self.r: dict[str, int] = {}
        self.alpha: dict[str, float] = {}
        self.scaling: dict[str, float] = {}
        self.full_scaling: dict[str, float] = {}  # as configured, where `scaling` was changed for a while
        self.merged_gates: dict[str, Tensor] = {}
        for name in (*self.adapter_layer_names, PREFIX + "dropout"):
            setattr(self, name, nn.ModuleDict())
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.unties = False  # whether other modules share the base weight
        self._kept: KeptWeight | None = None
        self.cast_input_dtype_enabled = True
        self.in_features, self.out_features = self._sizes()
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, r=r, alpha=alpha, inference_mode=config.inference_mode)

    @property
    def quantization_backend(self) -> Any:  # type: ignore[override]  # PEFT keeps it, but a base can be dequantised
        """PEFT's reader and writer of the base weight as it is now; None where it is plain."""
        return resolve_quantization_backend(self.get_base_layer(), **self.quantization_kwargs)

    def update_layer(
        self, adapter_name: str, config: StyleAdapterConfig, *, r: int, alpha: float, inference_mode: bool = False
    ) -> None:
        """Adds the adapter `adapter_name` of rank `r`, or replaces it, on the device of the base layer."""
        self.r[adapter_name], self.alpha[adapter_name] = r, alpha
        self.full_scaling[adapter_name] = alpha / (math.sqrt(r) if config.use_rslora else r)
        self.scaling[adapter_name] = self.full_scaling[adapter_name]
        self._table("dropout")[adapter_name] = self._make_dropout(config.dropout)
        self._table("A")[adapter_name], self._table("B")[adapter_name] = self._make_factors(r)
        for name, rows in (("gate", len(config.styles)), ("feature", config.style_dim), ("noise", config.noise_dim)):
            if adapter_name in self._table(name):
                del self._table(name)[adapter_name]
            if rows:  # no empty tables: every trainable tensor gets a gradient
                # no random number is drawn here, so that equal seeds give LoRA's own A
                self._table(name)[adapter_name] = nn.Embedding.from_pretrained(torch.empty(rows, r), freeze=False)
        # what is only loaded needs no costly start, which reads the base weight
        self.reset_parameters(adapter_name, config.init_weights if not inference_mode else bool(config.init_weights))
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _sizes(self) -> tuple[int, int]:
        """d_in and d_out."""
        return features_of(self.get_base_layer())

    def _make_factors(self, r: int) -> tuple[nn.Module, nn.Module]:
        """A and B as modules with a `weight` each."""
        raise NotImplementedError

    def _make_dropout(self, p: float) -> nn.Module:
        """The dropout on the input of A."""
        return nn.Dropout(p) if p else nn.Identity()

    def reset_parameters(self, adapter_name: str, init_weights: bool | str) -> None:
        """A and B as `start_factors` says; gates 1, features and noise 0, or all at random where it is False.

        With gates 1 an adapter of one style is LoRA; with B = 0 training starts at the frozen backbone. Factors that
        come from the base weight, "pissa", start with gates 0 instead.
        """
        start_factors(
            self._weight("A", adapter_name),
            self._weight("B", adapter_name),
            init_weights,
            base=self.get_base_layer(),
            base_weight=self.get_base_weight,
            scaling=self.scaling[adapter_name],
        )
        gate_start = 0.0 if isinstance(init_weights, str) and init_weights.startswith("pissa") else 1.0
        for name, start in (("gate", gate_start), ("feature", 0.0), ("noise", 0.0)):
            if adapter_name in self._table(name):
                table = self._weight(name, adapter_name)
                nn.init.constant_(table, start) if init_weights else nn.init.normal_(table)

    def _table(self, name: str) -> nn.ModuleDict:
        """The modules named `name`, by adapter."""
        return getattr(self, PREFIX + name)

    def _weight(self, name: str, adapter: str) -> Tensor:
        """One tensor of one adapter."""
        module: Any = self._table(name)[adapter]
        if module.weight.is_meta and hasattr(module, "_hf_hook"):  # offloaded, and no forward of it brings it in
            with align_module_device(module):
                return module.weight
        return module.weight

    @property
    def adapter_device(self) -> torch.device | None:
        """Where the adapters are; None without adapters."""
        return next((parameter.device for parameter in self._table("A").parameters()), None)

    def gate(self, adapter: str, code: StyleCode) -> Float[Tensor, "rows r"]:
        """g = sum_m w_m * gate[id_m] + f @ feature + z @ noise, for the rows of `code`, times this layer's strength."""
        table = self._weight("gate", adapter)
        if not torch.compiler.is_compiling() and code.single:  # a compiled graph serves mixtures too
            gate = F.embedding(code.ids[:, 0], table)
        else:
            gate = style_gate(code.ids, code.weights, table)
        for name, given in (("feature", code.features), ("noise", code.noise)):
            if given is not None and adapter in self._table(name):
                table = self._weight(name, adapter)
                gate = gate + given.to(table.device, table.dtype) @ table
        return gate if code.strength is None else gate * code.strength[self.number].to(gate.device, gate.dtype)

    def gate_for(self, adapter: str, code: StyleCode, batch: int) -> Float[Tensor, "rows r"]:
        """The gate for an input of `batch` rows: one row for all, or one each.

        Raises:
            ValueError: The input has neither as many rows as the code nor as many as `generate` or tiling makes of
                them, or its rows are not those of the batch.
        """
        gate = self.gate(adapter, code)
        rows = gate.shape[0]
        if rows == 1:
            return gate
        if "experts" in self.key.split("."):
            raise ValueError(
                f"styles: {rows} styles for one expert, {self.key}, which gets tokens of any row; give one style for "
                "the batch, or name the experts in exclude_modules"
            )
        if rows == batch:
            return gate
        for repeats in self.style_context.repeats_of(code):
            if rows * repeats == batch:
                return gate.repeat_interleave(repeats, dim=0)
        if code.tiled and batch % rows == 0:
            return gate.repeat(batch // rows, 1)
        if named := self.style_context.in_force().rows:
            raise ValueError(  # PEFT's own words
                f"Length of `adapter_names` should be the same as the number of inputs, but got {len(named)} and "
                f"{batch} respectively."
            )
        hint = (
            f"if only {self.key} gets them so, since all rows share its input, name it in exclude_modules"
            if batch == 1
            else "a batch that holds all rows several times in turn wants styled(..., tiled=True)"
        )
        raise ValueError(
            f"styles: {rows} styles for a batch of {batch} rows; give one style for the batch or exactly {batch}, one "
            f"a row; {hint}"
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

    def delete_adapter(self, adapter_name: str) -> None:
        """Removes the adapter from this layer, and its styles from those that can be named."""
        super().delete_adapter(adapter_name)
        self.style_context.drop_bank(adapter_name)
