"""Text drawn from a model such that a row's text depends on its own seed alone, whatever its batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from .estimators import sample_tokens
from .seeds import gumbel_tokens


class SeededSampling(LogitsProcessor):
    """Makes greedy search draw: y_t = argmax_v(a_v / temperature + g_v) over the `top_k` likeliest tokens.

    `g` = standard Gumbel noise of the row's own generator, so y_t is a draw from softmax(a / temperature) cut to the
    `top_k` (Fan et al. 2018, arXiv 1805.04833) and the `top_p` (Holtzman et al. 2020, arXiv 1904.09751): cautious
    sampling keeps a text GAN's samples near what the model is sure of (ColdGANs, Scialom et al. 2020, arXiv
    2006.04643). transformers' own sampling takes all rows from one generator: a row's text would change with its batch.

    Args:
        seeds: One a row; each draw of the row follows from it.
        length: Most tokens that will be drawn.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: How many tokens may be drawn.
        top_p: Least probability that the tokens which may be drawn have together, the likeliest first.
    """

    def __init__(
        self, seeds: Sequence[int], length: int, *, temperature: float | int = 1.0, top_k: int = 64, top_p: float = 1.0
    ) -> None:
        """Nothing is drawn yet."""
        if temperature < 0 or top_k < 1 or not 0 < top_p <= 1:
            raise ValueError(
                f"temperature={temperature} must be >= 0, top_k={top_k} >= 1 and top_p={top_p} in (0, 1]; 1, 64 and 1 "
                "are usual, temperature 0 takes the likeliest token"
            )
        self.temperature, self.top_k, self.top_p = float(temperature), top_k, top_p
        rows = len(seeds)
        self._noise = gumbel_tokens(seeds, [length] * rows, top_k).view(rows, length, top_k)
        self._drawn = 0

    def __call__(
        self, input_ids: Int[Tensor, "rows seq"], scores: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        """Scores in which only the drawn token of each row is above -inf."""
        noise = self._noise[:, self._drawn, : scores.shape[-1]].to(scores.device)
        self._drawn += 1
        tokens = sample_tokens(scores, noise, temperature=self.temperature, top_p=self.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)
