"""What differs between tasks: how rows are prepared, collated and counted, and how a model is judged on them."""

from .classification import ClassificationTask
from .setting import Setting
from .transfer import TransferTask

Task = type[TransferTask] | type[ClassificationTask]
TASKS: dict[str, Task] = {"transfer": TransferTask, "classification": ClassificationTask}

__all__ = ["TASKS", "ClassificationTask", "Setting", "Task", "TransferTask"]
