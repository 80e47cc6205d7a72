"""Self-training: rounds of learning from the best of what the adapter itself writes."""

from dataclasses import dataclass
from typing import Any

from .options import check_options, option

_REMEDY: dict[str, Any] = {"remedy": "correct it in the recipe"}


@dataclass
class RoundOptions:
    """Rounds of learning from the best of the adapter's own drafts."""

    rounds: int = option(
        0,
        "Rounds that follow the teacher's pairs: texts that its evidence has not heard are rewritten by the adapter "
        "and the teacher, and the adapter learns from the best rewrite of each.",
        bounds=">= 0",
        **_REMEDY,
    )
    round_rows: int = option(5000, "Texts that are rewritten for a round.", bounds=">= 1", **_REMEDY)
    round_samples: int = option(
        8, "Drafts of each text that are drawn beside the likeliest one.", bounds=">= 0", **_REMEDY
    )
    round_epochs: float = option(1.5, "Epochs of a round over its pairs.", bounds="> 0", **_REMEDY)
    round_rate: float = option(
        0.5, "What the adapter's learning rates are multiplied by in a round.", bounds="> 0", **_REMEDY
    )

    round_preference: float = option(
        0.0,
        "w_pref of a round: the best rewrite of each text should be likelier than the adapter's own.",
        bounds=">= 0",
        **_REMEDY,
    )

    def __post_init__(self) -> None:
        """Checks the bounds."""
        check_options(self)
