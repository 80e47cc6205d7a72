"""The teacher of unpaired text: rewrites found by search, for a model to learn from."""

from .edit_teacher import EditTeacher, Rewrite
from .pairs import Pair, teacher_pairs
from .scoring import RewriteWeights

__all__ = ["EditTeacher", "Pair", "Rewrite", "RewriteWeights", "teacher_pairs"]
