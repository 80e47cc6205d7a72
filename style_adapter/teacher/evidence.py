"""How a text shows its style: a linear model of its words and of words near each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..metrics.inputs import extra
from .arrays import padded
from .lexicon import EDGE

_SIZE = 2**21
_REACH = 4
_PRIMES = (1_000_003, 8_191)


@dataclass(frozen=True)
class StyleEvidence:
    """log P(s | x) - log P(not s | x), from log P(s | x) = a_s + sum_{f in x} w_{s,f} - log Z(x).

    Features f are the words of x and its ordered pairs of words at most four places apart ("not", "good"), hashed
    (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"); each place counts. Unlike
    `StyleJudge` it sees no letters and no length: what a judge is fooled by need not fool it. Fast enough for the
    thousands of drafts that a search for an edit makes.

    Attributes:
        styles: Names, in the order of the columns.
        weights: w, by hashed feature and style.
        offsets: a, by style.
    """

    styles: tuple[str, ...]
    weights: Float[np.ndarray, "features styles"]
    offsets: Float[np.ndarray, " styles"]

    @classmethod
    def fit(
        cls, texts: Sequence[Sequence[int]], styles: Sequence[str], *, strength: float = 5.0, seed: int = 0
    ) -> "StyleEvidence":
        """Logistic regression by averaged stochastic gradient descent, all styles of equal weight."""
        sparse, linear = extra("scipy.sparse", "StyleEvidence"), extra("sklearn.linear_model", "StyleEvidence")
        rows, columns = [], []
        for start in range(0, len(texts), 4096):
            found = features(padded(texts[start : start + 4096]))
            row, _ = np.nonzero(found >= 0)
            rows.append(row + start)
            columns.append(found[found >= 0])
        row, column = np.concatenate(rows), np.concatenate(columns)
        matrix = sparse.csr_matrix((np.ones(len(row), dtype=np.float32), (row, column)), shape=(len(texts), _SIZE))
        model = linear.SGDClassifier(
            loss="log_loss", alpha=strength / len(texts), average=True, class_weight="balanced", random_state=seed
        )
        model.fit(matrix, np.array(styles))
        names = tuple(map(str, model.classes_))
        if len(names) == 2:  # one column that tells the second from the first
            coef, offset = np.vstack([0 * model.coef_, model.coef_]), np.r_[0.0, model.intercept_]
        else:
            coef, offset = model.coef_, model.intercept_
        return cls(names, np.ascontiguousarray(coef.T, dtype=np.float32), offset.astype(np.float32))

    def logit(self, ids: Int[np.ndarray, "texts length"], style: str) -> Float[np.ndarray, " texts"]:
        """log P(style | x) - log P(another | x) of texts padded with edges behind."""
        found = features(ids)
        known = (found >= 0)[..., None]
        scores = self.offsets + np.where(known, self.weights[found], 0).sum(1)  # [texts, styles]
        column = self.styles.index(style)
        others = np.delete(scores, column, axis=1)
        top = others.max(1, keepdims=True)
        return scores[:, column] - (top[:, 0] + np.log(np.exp(others - top).sum(1)))

    def words(self, style: str, words: int) -> Float[np.ndarray, " words"]:
        """What each word by itself adds to the logit of `style`, other styles at their mean."""
        weights = self.weights[_hash(np.arange(words), np.zeros(words, dtype=np.int64), 0)]
        column = self.styles.index(style)
        return weights[:, column] - np.delete(weights, column, axis=1).mean(1)


def features(ids: Int[np.ndarray, "texts length"]) -> Int[np.ndarray, "texts features"]:
    """Hashed features of each text, -1 where there is none."""
    found = [np.where(ids != EDGE, _hash(ids, np.zeros_like(ids), 0), -1)]
    for apart in range(1, _REACH + 1):
        left, right = ids[:, :-apart], ids[:, apart:]
        found.append(np.where(right != EDGE, _hash(left, right, 1 + (apart > 1)), -1))
    return np.hstack(found)


def _hash(left: np.ndarray, right: np.ndarray, kind: int) -> np.ndarray:
    """A place for a word or a pair of words."""
    mixed = (left * _PRIMES[0] + right * _PRIMES[1] + kind * 77_777) * np.int64(0x9E3779B97F4A7C15 - 2**64)
    return (mixed >> np.int64(24)) & np.int64(_SIZE - 1)
