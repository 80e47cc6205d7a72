"""The discriminator's side of the game: features from the frozen backbone, a judge of them, a memory of real ones.

`hidden_after` gives the features, `StyleDiscriminator` judges them, `judge_detached` lends the judgement to the
generator, `StylePrototypes` remembers what real texts of each style look like,
`FeatureStore` keeps their features.
"""

from .discriminator import DISCRIMINATORS, Judgement, StyleDiscriminator, judge_detached
from .hidden import find_blocks, hidden_after
from .prototypes import StylePrototypes
from .store import STORES, FeatureStore

__all__ = [
    "DISCRIMINATORS",
    "STORES",
    "FeatureStore",
    "Judgement",
    "StyleDiscriminator",
    "StylePrototypes",
    "find_blocks",
    "hidden_after",
    "judge_detached",
]
