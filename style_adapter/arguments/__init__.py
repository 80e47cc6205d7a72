"""How a style adapter is trained: transformers' TrainingArguments plus both sides of the game."""

from .training import StyleTrainingArguments

__all__ = ["StyleTrainingArguments"]
