"""The table of an evaluation: copied input, frozen backbone, adapter, other systems and people, on the same lines."""

from .evaluator import StyleTransferEvaluator
from .report import Evaluation

__all__ = ["Evaluation", "StyleTransferEvaluator"]
