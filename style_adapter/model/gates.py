"""The gates of an adapter, read out: what each style makes of each rank of each layer."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..style import Style
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


@dataclass(frozen=True)
class StyleMap:
    """Styles in the plane: their gates, of all layers in one vector, on the first two principal components.

    Attributes:
        names: Of the styles.
        coordinates: G V of the gates G, one row a style, and the directions V in which styles differ most: those of
            the SVD of G minus its mean.
    """

    names: tuple[str, ...]
    coordinates: Float[Tensor, "styles 2"]

    @property
    def points(self) -> dict[str, tuple[float, float]]:
        """Where each style lies."""
        rows = (self.coordinates - self.coordinates.mean(0)).tolist()
        return {name: (x, y) for name, (x, y) in zip(self.names, rows, strict=True)}

    def place(self, style: Style) -> tuple[float, float]:
        """(sum_m w_m g_m - mean g) V: where a mixture lies; one of two styles, on the line between them."""
        weights = torch.tensor([float(style.weights.get(name, 0.0)) for name in self.names])
        x, y = (weights @ self.coordinates - self.coordinates.mean(0)).tolist()
        return x, y


def style_map(model: nn.Module) -> StyleMap:
    """The map of all styles of the active adapter.

    Raises:
        ValueError: A merged model.
    """
    found = gates_of(model)
    gates = torch.stack([torch.cat([gate.flatten() for gate in layers.values()]) for layers in found.values()])
    _, _, directions = torch.linalg.svd(gates - gates.mean(0), full_matrices=False)
    axes = torch.zeros(gates.shape[1], 2)
    axes[:, : min(2, len(directions))] = directions[:2].T
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # an SVD leaves the signs open
    return StyleMap(tuple(found), gates @ (axes * signs))
