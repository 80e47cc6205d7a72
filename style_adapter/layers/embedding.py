"""Embeddings: a table of vectors is a linear layer on one-hot inputs."""

import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..functional import spread
from ..style import StyleCode
from .layer import StyleLayer


class StyleEmbedding(StyleLayer):
    """h = W[x] + s * B diag(g) A[:, x] with A [r, num_embeddings] and B [embedding_dim, r].

    Starts like LoRA's embeddings: A = 0 and B normal, so that the rows of rare tokens stay the base's.
    """

    def _make_factors(self, r: int) -> tuple[nn.Module, nn.Module]:
        """A and B, in the shapes that a linear layer on one-hot inputs has."""
        return nn.Linear(self.in_features, r, bias=False), nn.Linear(r, self.out_features, bias=False)

    def _make_dropout(self, p: float) -> nn.Module:
        """None: the input is token numbers; LoRA has none there either."""
        return nn.Identity()

    def _update(self, adapter: str, code: StyleCode, x: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch embedding_dim"]:
        """s * B diag(g) A[:, x], times the scale that some models put on their embeddings."""
        base = self.get_base_layer()
        gate = self._scaled_gate(adapter, code, x.shape[0] if x.dim() > 1 else 1)
        a, b = self._weight("A", adapter), self._weight("B", adapter)
        middle = F.embedding(x, a.T, padding_idx=base.padding_idx, sparse=False)  # type: ignore[arg-type]
        update = F.linear(middle * spread(gate, middle.dim()).to(middle.dtype), b)
        scale = self._get_embed_scale()
        return update if scale is None else update * scale.to(update.dtype)

    def _delta(self, adapter: str, gate: Float[Tensor, " r"]) -> Float[Tensor, "num_embeddings embedding_dim"]:
        """dW, transposed: a table has one row an input."""
        return super()._delta(adapter, gate).T
