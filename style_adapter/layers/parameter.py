"""Parameters of modules that are no layer of a known kind, such as experts that are stacked in one tensor."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..config import StyleAdapterConfig
from ..functional import stacked_delta_weight
from .layer import StandIn
from .twin import with_parameters


class ParamWrapper(StandIn):
    """W + dW in place of one parameter W [d_out, d_in] or of stacked experts W [experts, d_out, d_in].

    dW_e = s * B_e diag(g) A_e has factors of its own for each expert e and one gate for all, so that a style costs r
    numbers here too. The sum is made anew in each forward; whatever the module does with W is done for all rows, so a
    batch has one style. Of several parameters of a module each has a wrapper, one around another.

    PEFT's injection of `target_parameters` knows this class by its name.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: StyleAdapterConfig,
        *,
        parameter_name: str,
        **kwargs: Any,
    ) -> None:
        """Wraps the module that has the parameter `parameter_name`, or another wrapper of it."""
        self.parameter_name = parameter_name  # before the factors are made, which have its sizes
        super().__init__(base_layer, adapter_name, config, **kwargs)

    def _parameter(self) -> Tensor:
        """W."""
        return getattr(self.get_base_layer(), self.parameter_name)

    def _is_transposed(self) -> bool:
        """Whether W is [experts, d_in, d_out], as some models keep it."""
        return self._parameter().dim() == 3 and getattr(self.get_base_layer(), "is_transposed", False)

    def _sizes(self) -> tuple[int, int]:
        """d_in and d_out.

        Raises:
            ValueError: Another number of dimensions, or a weight that nothing can be added to.
        """
        parameter = self._parameter()
        if parameter.dim() not in (2, 3) or not parameter.is_floating_point() or self.quantization_backend is not None:
            raise ValueError(
                f"target_parameters matched {self.key}, {parameter.dtype} of shape {list(parameter.shape)}, which must "
                "be a floating-point matrix or a stack of them; leave it out of target_parameters, or load the model "
                "unquantised"
            )
        d_out, d_in = parameter.shape[-2:]
        return (d_out, d_in) if self._is_transposed() else (d_in, d_out)

    def _make_factors(self, r: int) -> tuple[nn.Module, nn.Module]:
        """A and B of all experts."""
        experts = self._parameter().shape[0] if self._parameter().dim() == 3 else 1
        a = nn.Linear(self.in_features, r * experts, bias=False)
        return a, nn.Linear(r * experts, self.out_features, bias=False)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: Any = None) -> None:
        """The adapter's tensors where W is, in its dtype."""
        parameter = self._parameter()
        for name in ("A", "B", "gate", "feature", "noise"):
            if adapter_name in self._table(name) and not self._weight(name, adapter_name).is_meta:
                self._table(name)[adapter_name].to(device or parameter.device, parameter.dtype)

    def get_base_weight(self) -> Tensor:
        """W."""
        return self._parameter().data

    def set_base_weight(self, weight_data: Tensor) -> None:
        """Replaces W; one that another module shares gets a tensor of its own, until unmerged."""
        if self.unties:  # such weights are named so
            super().set_base_weight(weight_data)
        else:
            self._parameter().data = weight_data

    def _delta(self, adapter: str, gate: Float[Tensor, " r"]) -> Tensor:
        """dW in the shape of W."""
        a, b = self._weight("A", adapter), self._weight("B", adapter)
        stack = stacked_delta_weight(a, b, gate.to(b.device, b.dtype), self.scaling[adapter])
        if self._parameter().dim() == 2:
            return stack[0]
        return stack.transpose(1, 2) if self._is_transposed() else stack

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the module gives with W + dW in place of W."""
        return self._run_with({}, x, *args, **kwargs)

    def _run_with(self, values: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """The same with `values` in place of other parameters too: those of the wrappers around this one."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if not self.disable_adapters and not self.merged:
            values = {**values, **self._adapted()}
        base = self.base_layer
        if isinstance(base, ParamWrapper):
            return base._run_with(values, *args, **kwargs)
        if not values:
            return base(*args, **kwargs)
        # a graph follows no twin, and puts nothing into a module that threads share; a forward that the instance was
        # given, as accelerate gives one where a model is spread over devices, is bound to the module itself
        if torch.compiler.is_compiling() or "forward" in vars(base):
            return torch.func.functional_call(base, values, args, kwargs)
        return with_parameters(base, values)(*args, **kwargs)

    def _adapted(self) -> dict[str, Tensor]:
        """W + dW by name; nothing where no adapter runs.

        Raises:
            ValueError: One style a row: the rows share W. Or W is offloaded, and comes later.
        """
        weight = plain = self._parameter()
        if plain.is_meta and hasattr(self.get_base_layer(), "_hf_hook"):
            raise ValueError(
                f"{self.key} must not be offloaded: W + dW is made before its module brings it in; keep that module on "
                "a device in device_map, or leave it out of target_parameters"
            )
        for adapter, code in self.running(plain.device):
            gate = self.gate(adapter, code)
            if gate.shape[0] != 1:
                raise ValueError(
                    f"styles: {gate.shape[0]} styles for the parameter {self.key}, which all rows share; give one "
                    "style for the batch, or leave it out of target_parameters"
                )
            weight = weight + self._delta(adapter, gate[0]).to(plain.dtype)
        return {} if weight is plain else {self.parameter_name: weight}

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """The module without its wrappers, with the style merged if wanted."""
        if merge:
            self.merge(safe_merge, adapter_names)
        inner: Any = self.base_layer
        if isinstance(inner, ParamWrapper):
            return inner.unload_and_optionally_merge_module(merge, safe_merge, adapter_names)
        return inner

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """PEFT converts updates of plain layers only; `export_lora` writes this one."""
        return False
