"""The watch: how a run is judged while it goes on, when it is steered, and when it stops."""

from dataclasses import dataclass

from .options import option

_CHECK = {"remedy": "null turns the check off"}


@dataclass
class WatchOptions:
    """How a run is judged while it goes on, when it is steered, and when it stops."""

    eval_samples: int = option(
        128, "Rows of the evaluation set that are rewritten and judged at each evaluation.", bounds=">= 1"
    )
    eval_max_new_tokens: int = option(
        128, "Most tokens of a text that is written in an evaluation, in the task generation.", bounds=">= 1"
    )
    generation_batch_size: int = option(32, "Texts generated at once, in an evaluation and for a round.", bounds=">= 1")
    early_stopping_patience: int = option(
        0, "Evaluations without a better style score, J, before training stops; 0: never.", bounds=">= 0"
    )
    watch_steps: int = option(100, "Steps from one look at samples to the next; 0: at evaluations only.", bounds=">= 0")
    watch_samples: int = option(
        16, "Rows of the evaluation set, or of the training set, that are rewritten at each look.", bounds=">= 1"
    )
    term_gradient_steps: int = option(
        0,
        "Steps from one measure of each term's own gradient norm to the next, one more backward a term; 0: never. "
        "Not under FSDP or DeepSpeed.",
        bounds=">= 0",
    )
    monitor_patience: int = option(
        3, "Log lines, or looks at samples, over which the monitor takes its means before it acts.", bounds=">= 1"
    )
    monitor_d_accuracy: float | None = option(
        0.95, "D's accuracy above which D wins and the adversary's weight is halved.", bounds="in [0, 1]", **_CHECK
    )
    monitor_content: float | None = option(
        0.2, "Samples' content under which the adversary's weight is halved.", bounds="in [0, 1]", **_CHECK
    )
    monitor_floor: float = option(
        0.0625, "The smallest factor that the monitor puts on the adversary's weight.", bounds="in (0, 1]"
    )
    monitor_copy_rate: float | None = option(
        0.9, "Copy rate of the samples above which training stops.", bounds="in [0, 1]", **_CHECK
    )
    monitor_repetition_rate: float | None = option(
        0.3, "Repetition rate of the samples above which training stops.", bounds="in [0, 1]", **_CHECK
    )
    monitor_distinct_2: float | None = option(
        0.1, "Share of different bigrams in the samples under which training stops.", bounds="in [0, 1]", **_CHECK
    )
    monitor_same_output: float | None = option(
        0.5, "Share of the sources with the same output above which training stops.", bounds="in [0, 1]", **_CHECK
    )
    max_skipped_steps: int = option(
        3, "Steps in a row without finite gradients, each of them dropped, after which training stops.", bounds=">= 1"
    )
