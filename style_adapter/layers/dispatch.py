"""Which class adapts which base layer: one table."""

from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from .._peft import BaseTunerLayer, resolve_quantization_backend
from .attention import StyleMultiheadAttention
from .conv import StyleConv
from .embedding import StyleEmbedding
from .layer import StyleLayer
from .linear import StyleLinear

LAYER_CLASSES: dict[type[nn.Module], type[StyleLayer]] = {
    nn.Linear: StyleLinear,
    Conv1D: StyleLinear,
    nn.Embedding: StyleEmbedding,
    nn.Conv1d: StyleConv,
    nn.Conv2d: StyleConv,
    nn.Conv3d: StyleConv,
    nn.MultiheadAttention: StyleMultiheadAttention,
}
QUANTISED_CLASSES: dict[str, type[StyleLayer]] = {"linear": StyleLinear}


def layer_class(target: nn.Module, key: str, **kwargs: Any) -> type[StyleLayer]:
    """The class that adapts `target`, whose name in the model is `key`.

    Raises:
        ValueError: No class for its type; the message lists the known ones, and what to name instead.
    """
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    backend = resolve_quantization_backend(base, **kwargs)
    if backend is not None and backend.layer_type in QUANTISED_CLASSES:
        return QUANTISED_CLASSES[backend.layer_type]
    if isinstance(base, NonDynamicallyQuantizableLinear):
        raise ValueError(
            f"target_modules matched {key}, the out_proj of a MultiheadAttention, which must not be adapted alone: its "
            "forward is never called; name the attention module itself, or exclude out_proj with exclude_modules"
        )
    for base_type, cls in LAYER_CLASSES.items():
        if isinstance(base, base_type):
            return cls
    known = ", ".join(t.__name__ for t in LAYER_CLASSES)
    if _holds_stacked_experts(base):
        raise ValueError(
            f"target_modules matched {key}, a {type(base).__name__} whose experts are stacked in one tensor, which "
            "must not be adapted as a module: the tokens of all rows mix there; set target_parameters="
            f"{[f'{key}.{name}' for name, _ in base.named_parameters(recurse=False)]}, with one style a batch, or name "
            "the attention projections alone in target_modules"
        )
    raise ValueError(
        f"target_modules matched {key}, a {type(base).__name__}, which must be one of {known}; leave it out of "
        "target_modules"
    )


def _holds_stacked_experts(module: nn.Module) -> bool:
    """Whether the module's own parameters are stacks of matrices, as transformers keeps routed experts."""
    return any(parameter.dim() == 3 for parameter in module.parameters(recurse=False))
