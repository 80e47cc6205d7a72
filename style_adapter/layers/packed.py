"""bitsandbytes repacks 4-bit weights for inference on the CPU: what was repacked can neither train nor merge."""

from torch import nn


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
