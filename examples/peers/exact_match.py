"""A metric module as `evaluate.load` reads it from a path: the share of predictions that equal their reference."""

from typing import Any

import datasets
import evaluate


class ExactMatch(evaluate.Metric):
    """Share of equal texts, in [0, 1]; those of the hub are loaded by name."""

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=__doc__, citation="", inputs_description="Texts.", features=texts)

    def _compute(self, predictions: list[str], references: list[str], **kwargs: Any) -> dict[str, float]:
        equal = sum(said == wanted for said, wanted in zip(predictions, references, strict=True))
        return {"exact_match": equal / len(references)}
