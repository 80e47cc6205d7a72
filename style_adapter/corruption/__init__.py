"""What is taken from a text that a model shall rebuild: words, their order, the markers of its style, masked tokens.

Each corruption is a pure function of (text or ids, generator); `seeds.row_seed` and `seeds.generator_of` make the
generator of a row, so that no batch, worker or process changes what the row becomes. None leaves an empty text.
"""

from .denoising import Corruption, drop_words, shuffle_words
from .markers import StyleMarkers
from .masking import mask_tokens
from .words import join_words, split_words

__all__ = [
    "Corruption",
    "StyleMarkers",
    "drop_words",
    "join_words",
    "mask_tokens",
    "shuffle_words",
    "split_words",
]
