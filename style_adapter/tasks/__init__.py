"""What differs between tasks: how rows are prepared, collated and counted, and how a model is judged on them."""

from .classification import ClassificationTask
from .setting import Setting
from .transfer import TransferTask
from .unpaired import UnpairedTask

Task = type[TransferTask] | type[UnpairedTask] | type[ClassificationTask]
TASKS: dict[str, Task] = {
    "transfer": TransferTask,
    "unpaired": UnpairedTask,
    "classification": ClassificationTask,
}

__all__ = ["TASKS", "ClassificationTask", "Setting", "Task", "TransferTask", "UnpairedTask"]
