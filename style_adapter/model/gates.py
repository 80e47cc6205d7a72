"""The gates of an adapter, read out: what each style makes of each rank of each layer."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .finding import find_adapted
from .styled import styled, styles_of


def gates_of(model: nn.Module, styles: Iterable[str] | None = None) -> dict[str, dict[str, Float[Tensor, " r"]]]:
    """g = sum_m w_m * G_style[id_m] of each style in each layer that the active adapter adapts: {style: {layer: g}}.

    Args:
        model: A model with a style adapter.
        styles: Names; all of the adapter's if left out.

    Raises:
        ValueError: A name that the adapter lacks, or a merged model.
    """
    found: dict[str, dict[str, Float[Tensor, " r"]]] = {}
    with torch.no_grad():
        for style in styles_of(model) if styles is None else styles:
            with styled(model, style):
                found[style] = {
                    layer.key: layer.fixed_gate(adapter).float().cpu()
                    for layer in find_adapted(model).layers
                    for adapter in layer.active_adapters[:1]
                    if adapter in layer.r
                }
    return found
