"""What differs between tasks: how rows are prepared, collated and counted, and how a model is judged on them."""

from .classification import ClassificationTask
from .generation import GenerationTask
from .masked_lm import MaskedTask
from .rewriting import Orders
from .setting import Setting
from .token_classification import TokenClassificationTask
from .transfer import TransferTask
from .unpaired import UnpairedTask

Task = (
    type[TransferTask]
    | type[UnpairedTask]
    | type[ClassificationTask]
    | type[TokenClassificationTask]
    | type[MaskedTask]
    | type[GenerationTask]
)
TASKS: dict[str, Task] = {
    "transfer": TransferTask,
    "unpaired": UnpairedTask,
    "classification": ClassificationTask,
    "token_classification": TokenClassificationTask,
    "masked_lm": MaskedTask,
    "generation": GenerationTask,
}

__all__ = [
    "TASKS",
    "ClassificationTask",
    "GenerationTask",
    "MaskedTask",
    "Orders",
    "Setting",
    "Task",
    "TokenClassificationTask",
    "TransferTask",
    "UnpairedTask",
]
