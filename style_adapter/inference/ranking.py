"""How good a rewrite is, told by the adapter that wrote it."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from ..model import styles_of
from .likelihood import log_likelihoods

Scores = Callable[[list[str], list[str], list[str]], Float[np.ndarray, " pairs"]]
"""(sources, outputs, labels of styles) -> how good each output is; such as `EditTeacher.score`."""


def default_score(model: PeftModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 64) -> Scores:
    """score(x, y, s) = log p(y | x, s) + max_{s' != s} log p(x | y, s'), both means over tokens.

    x is the source, y its rewrite, s the style that was asked for; s' are the adapter's other styles, since that of x
    is not known. The second term is that of a noisy channel (Yee et al. 2019, "Simple and Effective Noisy Channel
    Modeling for Neural Machine Translation", arXiv 1908.05731): a rewrite that has lost what x says does not lead back
    to x. An adapter of one style has the first term alone.

    Args:
        model: A model with a style adapter, trained to rewrite into all its styles.
        tokenizer: The backbone's.
        batch_size: Pairs read at once.
    """
    names = list(styles_of(model))

    def score(sources: list[str], outputs: list[str], styles: list[str]) -> Float[np.ndarray, " pairs"]:
        forward = log_likelihoods(model, tokenizer, sources, outputs, styles, batch_size=batch_size)
        back = np.full((len(names), len(sources)), -np.inf)
        for found, name in zip(back, names, strict=True):
            rows = [i for i, style in enumerate(styles) if style != name]
            read, asked = [outputs[i] for i in rows], [sources[i] for i in rows]
            found[rows] = log_likelihoods(model, tokenizer, read, asked, name, batch_size=batch_size)
        best = back.max(0)
        return forward + np.where(np.isfinite(best), best, 0.0)

    return score
