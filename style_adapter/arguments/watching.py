"""The watch: how a run is judged while it goes on, and when it stops."""

from dataclasses import dataclass

from .options import option


@dataclass
class WatchOptions:
    """How a run is judged while it goes on, and when it stops."""

    eval_samples: int = option(
        128, "Rows of the evaluation set that are rewritten and judged at each evaluation.", bounds=">= 1"
    )
    eval_max_new_tokens: int = option(
        128, "Most tokens of a text that is written in an evaluation, in the task generation.", bounds=">= 1"
    )
    generation_batch_size: int = option(32, "Texts generated at once in an evaluation.")
    early_stopping_patience: int = option(
        0, "Evaluations without a better style score before training stops; 0: never."
    )
    max_skipped_steps: int = option(
        3, "Steps in a row without finite gradients, each of them dropped, after which training stops.", bounds=">= 1"
    )
