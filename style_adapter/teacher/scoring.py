"""How good a rewrite is, told from two piles of texts alone: style, content, what was kept, how usual it reads."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Numbers = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class RewriteWeights:
    """score(y | x, s) = w_s min(logit_s(y), cap) + w_c cos(removed, inserted) - w_k changed + w_f gain(y, x).

    Attributes:
        style: w_s, of the logit of the wanted style.
        cap: The logit from which on a text is enough in its style.
        content: w_c, of the cosine between the words taken out and the words put in: they should do the same work.
        keep: w_k, of each changed word.
        fluency: w_f, of the gain in log-likelihood under the pile of the style.
        commonness: Share of the gain in log p_1 of the words that is taken out of it, 0..1: else common words would
            win everywhere.
    """

    style: float = 1.5
    cap: float = 2.5
    content: float = 3.0
    keep: float = 3.0
    fluency: float = 0.2
    commonness: float = 0.9

    def score(self, *, logit: Numbers, cosine: Numbers, changed: Int[np.ndarray, " n"], gain: Numbers) -> Numbers:
        """The score of each rewrite, from its parts."""
        style = self.style * np.minimum(logit, self.cap)
        return style + self.content * cosine - self.keep * changed + self.fluency * gain


def cosine(a: Float[np.ndarray, "n dim"], b: Float[np.ndarray, "n dim"]) -> Numbers:
    """Cosine of the rows of two arrays; 0 where one of them is zero."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(1) / np.maximum(lengths, np.finfo(float).tiny)
