"""torch's fused encoder layers read the bare weights of their parts: what adapts these would be passed by."""

from collections.abc import Iterator

from torch import nn

from .layer import StyleLayer

# what each reads before it goes the fast way, and the value that forbids it
FAST_WAYS: dict[type[nn.Module], tuple[str, object]] = {
    nn.TransformerEncoderLayer: ("activation_relu_or_gelu", 0),
    nn.TransformerEncoder: ("use_nested_tensor", False),
}
KEPT = "_style_adapter_fast_way"


def keep_unfused(model: nn.Module) -> None:
    """Sends torch's encoders that hold adapted layers the plain way, which calls them; also in eval mode."""
    for module, name, slow in _fast_ways(model):
        if KEPT not in vars(module) and any(isinstance(part, StyleLayer) for part in module.modules()):
            setattr(module, KEPT, getattr(module, name))
            setattr(module, name, slow)


def fuse_again(model: nn.Module) -> None:
    """Gives torch's encoders their fast way back."""
    for module, name, _ in _fast_ways(model):
        if KEPT in vars(module):
            setattr(module, name, vars(module).pop(KEPT))


def _fast_ways(model: nn.Module) -> Iterator[tuple[nn.Module, str, object]]:
    """The modules of `model` that know a fast way, its switch and the value that closes it."""
    for module in model.modules():
        for kind, (name, slow) in FAST_WAYS.items():
            if isinstance(module, kind) and hasattr(module, name):
                yield module, name, slow
