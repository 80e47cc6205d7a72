"""Texts in, or nothing; texts of a style or classes out; and the way from a saved folder back to a model."""

from .batches import evaluating, pad_id, prompt_of, rows_of
from .choosing import Choice, choose, drafts, ranked, transfer_best
from .classifying import classify, tag
from .likelihood import log_likelihoods
from .loading import ensure_padding, load, load_backbone
from .pipelines import WRITERS, StylePipeline, pipeline
from .ranking import Scores, default_score
from .rewriting import transfer
from .streaming import stream
from .writing import write

__all__ = [
    "WRITERS",
    "Choice",
    "Scores",
    "StylePipeline",
    "choose",
    "classify",
    "default_score",
    "drafts",
    "ensure_padding",
    "evaluating",
    "load",
    "load_backbone",
    "log_likelihoods",
    "pad_id",
    "pipeline",
    "prompt_of",
    "ranked",
    "rows_of",
    "stream",
    "tag",
    "transfer",
    "transfer_best",
    "write",
]
