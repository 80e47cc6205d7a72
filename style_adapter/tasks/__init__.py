"""What differs between tasks: how rows are prepared, collated and counted, and how a model is judged on them."""

from .classification import ClassificationTask
from .setting import Setting
from .token_classification import TokenClassificationTask
from .transfer import TransferTask
from .unpaired import UnpairedTask

Task = type[TransferTask] | type[UnpairedTask] | type[ClassificationTask] | type[TokenClassificationTask]
TASKS: dict[str, Task] = {
    "transfer": TransferTask,
    "unpaired": UnpairedTask,
    "classification": ClassificationTask,
    "token_classification": TokenClassificationTask,
}

__all__ = ["TASKS", "ClassificationTask", "Setting", "Task", "TokenClassificationTask", "TransferTask", "UnpairedTask"]
