"""Base weights that a merge cannot simply add to: repacked by bitsandbytes, rounded to few bits, or shared."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class KeptWeight:
    """The weight that a base layer had before the first merge, to come back bit by bit when unmerged.

    Attributes:
        weight: The parameter itself, which other modules may share.
        attributes: What bitsandbytes and others keep on it; PEFT changes some as it sets another weight.
        scales: The row scales of an 8-bit weight, which its layer takes away from it in the first forward.
    """

    weight: nn.Parameter
    attributes: dict[str, Any]
    scales: Tensor | None

    @classmethod
    def of(cls, base: Any) -> "KeptWeight":
        """The weight of the layer `base`."""
        return cls(base.weight, dict(vars(base.weight)), getattr(getattr(base, "state", None), "SCB", None))

    def belongs_to(self, base: Any) -> bool:
        """Whether `base` is still of that kind; a merged base can be dequantised."""
        return type(base.weight) is type(self.weight)

    def restore(self, base: Any) -> None:
        """Puts it back on `base`."""
        vars(self.weight).clear()
        vars(self.weight).update(self.attributes)
        base.weight = self.weight
        if hasattr(base, "quant_state"):  # 4 bits
            base.quant_state = self.attributes["quant_state"]
        if self.scales is not None:  # 8 bits
            vars(self.weight).update(CB=self.weight.data, SCB=self.scales)
            base.state.reset_grads()


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
