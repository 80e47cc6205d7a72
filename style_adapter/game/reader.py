"""What the discriminator is shown: features of what was written beside those of real texts of the same style."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..adversary import FeatureStore
from ..data import chosen_rows, pad
from ..functional import IGNORED
from ..losses import instance_noise
from ..seeds import normal_tokens, seeds_for
from .fakes import ESTIMATES, Fakes
from .features import FrozenFeatures
from .memory import GameMemory
from .order import Order
from .rules import GameRules


@dataclass(frozen=True)
class Texts:
    """Features of texts, one a row.

    Attributes:
        features: phi_k.
        mask: Where a row has a token.
    """

    features: Float[Tensor, "rows seq dim"]
    mask: Bool[Tensor, "rows seq"]

    def detached(self) -> "Texts":
        """The same without a gradient."""
        return Texts(self.features.detach(), self.mask)

    def blurred(self, seeds: Sequence[int], std: float, use: str) -> "Texts":
        """With instance noise, drawn by the seed of each row."""
        if not std:
            return self
        drawn = normal_tokens(seeds_for(seeds, use), self.mask.sum(-1).tolist(), self.features.shape[-1])
        noise = torch.zeros_like(self.features).masked_scatter(self.mask[..., None], drawn.to(self.features))
        return Texts(instance_noise(self.features, noise, std=std), self.mask)

    def replaced(self, rows: Sequence[int], others: "Texts") -> "Texts":
        """With `others` in the places of `rows`."""
        width = max(self.mask.shape[1], others.mask.shape[1])
        features, mask = self._widened(width), torch.nn.functional.pad(self.mask, (0, width - self.mask.shape[1]))
        features[list(rows)] = others._widened(width).to(features)
        mask[list(rows)] = torch.nn.functional.pad(others.mask, (0, width - others.mask.shape[1]))
        return Texts(features, mask)

    def _widened(self, width: int) -> Float[Tensor, "rows width dim"]:
        """A copy of the features, padded to `width` positions."""
        return torch.nn.functional.pad(self.features, (0, 0, 0, width - self.mask.shape[1]))


@dataclass(frozen=True)
class Reader:
    """Reads texts as the discriminator does.

    Attributes:
        features: phi_k, of the frozen backbone.
        rules: How discrete text passes a gradient, and how often an old fake is shown.
        memory: Holds old fakes.
        store: Keeps the features of real texts, where wanted.
    """

    features: FrozenFeatures
    rules: GameRules
    memory: GameMemory
    store: FeatureStore | None

    def fakes(self, fakes: Fakes) -> tuple[Int[Tensor, " tokens"], Texts]:
        """The tokens that were written, and phi_k(G(x, s, z)) with its gradient."""
        mask = fakes.lesson.mask
        tokens, embedded = ESTIMATES[self.rules.estimator](fakes, self.features.table, self.rules)
        return tokens, Texts(self.features(self.features.place(embedded, mask), mask), mask)

    def mixtures(self, fakes: Fakes) -> Texts:
        """phi_k of the mixtures of tokens that the generator gives at each position."""
        mask = fakes.lesson.mask
        _, embedded = ESTIMATES["soft"](fakes, self.features.table, self.rules)
        return Texts(self.features(self.features.place(embedded, mask), mask), mask)

    @torch.no_grad()
    def real(self, order: Order) -> Texts:
        """phi_k(x) of the real texts of an order."""
        mask = order.real != IGNORED
        tokens = order.real[mask]
        if self.store is None:
            return Texts(self.read(tokens, mask), mask)
        return Texts(self.store(order.real_ids, tokens, mask, self.read), mask)

    def with_old(
        self, fake: Texts, order: Order, style: Float[Tensor, "rows n_styles"], *, lockstep: bool = False
    ) -> Texts:
        """`fake` with a share of its rows replaced by old fakes of the same style, where the buffer has one.

        In `lockstep` the backbone is run once on every process, also where nothing is replaced.
        """
        buffer = self.memory.replay
        if buffer is None or not len(buffer):
            return fake
        chosen = chosen_rows(torch.tensor(order.draws("replay")), self.rules.replay).tolist()
        drawn = buffer.draw(order.draws("old"), style)
        texts = {row: text for row, text in enumerate(drawn) if text is not None and chosen[row]}
        if not texts and not lockstep:
            return fake
        labels = pad([*texts.values()] or [[0]], IGNORED).to(fake.mask.device)
        mask = labels != IGNORED
        with torch.no_grad():
            read = Texts(self.read(labels[mask], mask), mask)
        return fake.replaced([*texts], read) if texts else fake

    def read(self, tokens: Int[Tensor, " tokens"], mask: Bool[Tensor, "rows seq"]) -> Float[Tensor, "rows seq dim"]:
        """phi_k of token ids."""
        return self.features(self.features.embed(tokens, mask), mask)
