"""Which words stand in the same company: vectors of words from their neighbours."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..metrics.inputs import extra
from .lexicon import EDGE


def word_vectors(
    texts: Sequence[Sequence[int]], words: int, *, dim: int = 100, reach: int = 2, seed: int = 0
) -> Float[np.ndarray, "words dim"]:
    """U sqrt(S) of PPMI = U S V', one row a word; what stands in equal places has vectors of equal direction.

    PPMI(w, c) = max(0, log p(w, c) - log p(w) - log p(c)^0.75 / Z) over words at most `reach` places apart. Levy,
    Goldberg and Dagan (2015), "Improving Distributional Similarity with Lessons Learned from Word Embeddings". Texts
    of all styles together, so that words of two styles that do the same work are near each other.

    Args:
        texts: As numbers of a lexicon.
        words: Size of the lexicon.
        dim: Length of a vector, or less where there are fewer words.
        reach: Words on each side that count as company.
        seed: Of the randomised decomposition.
    """
    sparse, linear = extra("scipy.sparse", "word_vectors"), extra("sklearn.utils.extmath", "word_vectors")
    stream = np.fromiter((word for text in texts for word in (*[EDGE] * reach, *text)), dtype=np.int64)
    counts = sparse.csr_matrix((words, words))
    for apart in range(1, reach + 1):
        left, right = stream[:-apart], stream[apart:]
        inside = (left != EDGE) & (right != EDGE)
        pairs = (np.ones(inside.sum()), (left[inside], right[inside]))
        counts = counts + sparse.csr_matrix(pairs, shape=(words, words))
    counts = (counts + counts.T).tocoo()
    own = np.asarray(counts.sum(1)).ravel()
    company = np.maximum(own, 1) ** 0.75
    company /= company.sum()
    ppmi = np.maximum(0.0, np.log(counts.data / own[counts.row] / company[counts.col]))
    matrix = sparse.csr_matrix((ppmi, (counts.row, counts.col)), shape=(words, words))
    left, scale, _ = linear.randomized_svd(matrix, min(dim, words - 1), random_state=seed)
    return left * np.sqrt(scale)
