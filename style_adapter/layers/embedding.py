"""Embeddings: a table of vectors is a linear layer on one-hot inputs."""

from typing import Any

import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from jaxtyping import Float
from torch import Tensor, nn

from ..functional import spread
from ..style import StyleCode
from .layer import StandIn
from .twin import with_parameters

BETWEEN_TOKENS = ("relative", "rel_attn", "distance")  # in names of tables that are read with [query, key] distances


class StyleEmbedding(StandIn):
    """h = W[x] + s * B diag(g) A[:, x] with A [r, num_embeddings] and B [embedding_dim, r].

    Starts like LoRA's embeddings: A = 0 and B normal, so that the rows of rare tokens stay the base's. An embedding
    with a forward of its own, which scales its rows or counts positions, does to A what it does to W.

    Attributes:
        shared: Whether one row of inputs may serve all rows of the batch, as position numbers [1, T] do.
    """

    shared = False

    def _make_factors(self, r: int) -> tuple[nn.Module, nn.Module]:
        """A and B, in the shapes that a linear layer on one-hot inputs has."""
        base: nn.Embedding = self.get_base_layer()  # type: ignore[assignment]
        if base.max_norm is not None or any(base.children()):
            raise ValueError(
                f"target_modules matched {self.key}, a {type(base).__name__} that normalises its rows, which must be "
                "plain: no update of W could be merged exactly; leave it out of target_modules"
            )
        return nn.Linear(self.in_features, r, bias=False), nn.Linear(r, self.out_features, bias=False)

    def _make_dropout(self, p: float) -> nn.Module:
        """None: the input is token numbers; LoRA has none there either."""
        return nn.Identity()

    def _update(
        self, adapter: str, code: StyleCode, x: Tensor, *args: Any, **kwargs: Any
    ) -> Float[Tensor, "... embedding_dim"]:
        """s * B diag(g) A[:, x] of one adapter, for token numbers x [*batch]; or what the base layer reads instead."""
        gate = self._scaled_gate(adapter, code, self._rows(code, x))
        middle = self._read(self._weight("A", adapter).T, x, *args, **kwargs)
        if gate.shape[0] > 1 and (middle.dim() == x.dim() or self._is_positions(x)):
            middle = middle[None]  # [T, r], which all rows share
        return F.linear(middle * spread(gate, middle.dim()).to(middle.dtype), self._weight("B", adapter))

    def _read(self, table: Float[Tensor, "num_embeddings r"], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the base layer would return if `table` were its weight."""
        base: Any = self.get_base_layer()
        if type(base).forward is nn.Embedding.forward:
            return F.embedding(x, table, base.padding_idx)
        return type(base).forward(with_parameters(base, {"weight": table}), x, *args, **kwargs)

    def _rows(self, code: StyleCode, x: Tensor) -> int:
        """How many rows the batch has, as far as the input tells.

        Raises:
            ValueError: One style a row where the input is not by row at all.
        """
        rows = code.rows
        if rows > 1 and any(word in self.key.rpartition(".")[2] for word in BETWEEN_TOKENS):
            raise ValueError(
                f"styles: {rows} styles for {self.key}, whose inputs are distances between tokens and the same for all "
                "rows; give one style for the batch, or name the module in exclude_modules"
            )
        if self.shared and (self._is_positions(x) or (x.dim() > 1 and x.shape[0] == 1)):
            return self.style_context.batch_of(code)
        return x.shape[0] if self.shared or x.dim() > 1 else 1

    def _is_positions(self, x: Tensor) -> bool:
        """Whether `x` [T] numbers positions; other tables but that of tokens are read with one number a row, [B]."""
        return self.shared and x.dim() == 1 and "pos" in self.key.rpartition(".")[2]

    def _delta(self, adapter: str, gate: Float[Tensor, " r"]) -> Float[Tensor, "num_embeddings embedding_dim"]:
        """dW, transposed: a table has one row an input."""
        return super()._delta(adapter, gate).T
