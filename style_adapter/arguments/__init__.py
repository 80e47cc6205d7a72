"""How a style adapter is trained: transformers' TrainingArguments plus both sides of the game; rounds of it."""

from .rounds import RoundOptions
from .training import StyleTrainingArguments

__all__ = ["RoundOptions", "StyleTrainingArguments"]
