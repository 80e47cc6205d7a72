"""The teacher of unpaired text: rewrites found by search, for a model to learn from."""

from .edit_teacher import EditTeacher, Rewrite
from .pairs import ComparedPair, Halves, Pair, in_turn, pairs_of, teacher_pairs
from .scoring import RewriteWeights

__all__ = [
    "ComparedPair",
    "EditTeacher",
    "Halves",
    "Pair",
    "Rewrite",
    "RewriteWeights",
    "in_turn",
    "pairs_of",
    "teacher_pairs",
]
