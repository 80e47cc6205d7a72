"""Old fakes, kept so that the discriminator does not forget what the generator used to write."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .seeds import row_seed


class ReplayBuffer:
    """A uniform sample of at most `capacity` of all fakes ever added: each is in it with probability capacity / added.

    Reservoir sampling (Vitter 1985, algorithm R); a history of fakes as in Shrivastava et al. 2017 (arXiv 1612.07828),
    section 2.3. Which fakes stay is a pure function of (seed, number added), so processes that add the same rows in
    the same order hold the same buffer. Token ids and weights stay on the CPU.

    Args:
        capacity: Number of texts that are kept.
        n_styles: Width of the style weights.
        seed: Of the run.

    >>> buffer = ReplayBuffer(2, n_styles=1)
    >>> buffer.add([[5, 6], [7]], torch.ones(2, 1))
    >>> buffer.draw([0, 1], torch.ones(2, 1))
    [[5, 6], [7]]
    """

    def __init__(self, capacity: int, n_styles: int, *, seed: int = 0) -> None:
        """An empty buffer."""
        if capacity < 1:
            raise ValueError(f"capacity={capacity} must be >= 1; leave the buffer out for a game without replay")
        self.capacity, self.seed = capacity, seed
        self.added = 0
        self._texts: list[list[int]] = []
        self._weights = torch.zeros(capacity, n_styles)

    def __len__(self) -> int:
        """Number of texts in it."""
        return len(self._texts)

    def add(self, texts: Sequence[Sequence[int]], weights: Float[Tensor, "rows n_styles"]) -> None:
        """Takes in fakes: the token ids of each, without padding, and the style it was written in.

        Raises:
            ValueError: Not one row of weights a text, or a text without tokens, which no judge can read.
        """
        if len(texts) != len(weights) or not all(map(len, texts)):
            raise ValueError(
                f"texts of lengths {[*map(len, texts)]} must have at least 1 token and one of the {len(weights)} rows "
                "of weights each; leave empty texts out of both"
            )
        for text, weight in zip(texts, weights.detach().cpu(), strict=True):
            slot = self.added if self.added < self.capacity else row_seed(self.seed, 0, self.added) % (self.added + 1)
            self.added += 1
            if slot < self.capacity:
                self._texts[slot : slot + 1] = [list(text)]
                self._weights[slot] = weight

    def draw(self, seeds: Sequence[int], weights: Float[Tensor, "rows n_styles"]) -> list[list[int] | None]:
        """One text a row of `weights`, of that very style, by the row's seed; None where the buffer has none of it.

        The same for the same seed, style and buffer (`seeds.row_seed` gives seeds).
        """
        held = self._weights[: len(self)]
        matches = [(held == wanted).all(-1).nonzero()[:, 0].tolist() for wanted in weights.detach().cpu()]
        return [
            list(self._texts[slots[seed % len(slots)]]) if slots else None
            for seed, slots in zip(seeds, matches, strict=True)
        ]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything in it, as tensors that safetensors takes."""
        return {
            "tokens": _integers([token for text in self._texts for token in text]),
            "lengths": _integers([*map(len, self._texts)]),
            "weights": self._weights[: len(self)].clone(),
            "added": _integers([self.added]),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state_dict` gave: from then on the buffer goes on as that one would have.

        Raises:
            ValueError: Another number of styles, or another capacity than the texts were chosen for.
        """
        rows, width, added = *state["weights"].shape, int(state["added"])
        if width != self._weights.shape[1] or rows != min(added, self.capacity):
            raise ValueError(
                f"state of {rows} of {added} texts and {width} styles must fit capacity={self.capacity} and "
                f"n_styles={self._weights.shape[1]}; build ReplayBuffer with the sizes that were saved"
            )
        self._texts = [text.tolist() for text in state["tokens"].split(state["lengths"].tolist())]
        self._weights[:rows] = state["weights"]
        self.added = added


def _integers(values: list[int]) -> Int[Tensor, " values"]:
    """A tensor of integers, also of none."""
    return torch.tensor(values, dtype=torch.long)
