"""style_adapter: one PEFT adapter for all styles, trained against a discriminator on a frozen backbone.

Importing it registers the method with PEFT: `get_peft_model`, `PeftModel.from_pretrained` and the integrations of
transformers and diffusers then know `StyleAdapterConfig`. What trains or evaluates is imported at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._peft import extend, register
from .card import write_card
from .config import StyleAdapterConfig
from .hub import push_to_hub
from .model import StyleAdapterModel, gates_of, styled, styles_of
from .style import OFF, Style, StyleBank, blend

if TYPE_CHECKING:
    from .adversary import StyleDiscriminator
    from .arguments import StyleTrainingArguments
    from .data import StyleCollator
    from .evaluation import Evaluation, StyleTransferEvaluator
    from .export import export_lora
    from .files import transfer_files
    from .game import StyleGame
    from .inference import StylePipeline, classify, load, pipeline, stream, tag, transfer, transfer_best, write
    from .loras import from_loras
    from .metrics import StyleJudge
    from .planning import plan
    from .plots import plot_gates
    from .self_training import best_pairs
    from .teacher import EditTeacher, teacher_pairs
    from .trainer import GameMonitor, StyleTrainer
    from .training import write_report

register(StyleAdapterConfig, StyleAdapterModel)
# PEFT's card would name the folder of a local backbone, which the hub refuses; its push would leave that card out.
extend("create_or_update_model_card", write_card)
extend("push_to_hub", push_to_hub)

__version__ = "0.1.0.dev0"

__all__ = [
    "OFF",
    "EditTeacher",
    "Evaluation",
    "GameMonitor",
    "Style",
    "StyleAdapterConfig",
    "StyleAdapterModel",
    "StyleBank",
    "StyleCollator",
    "StyleDiscriminator",
    "StyleGame",
    "StyleJudge",
    "StylePipeline",
    "StyleTrainer",
    "StyleTrainingArguments",
    "StyleTransferEvaluator",
    "best_pairs",
    "blend",
    "classify",
    "export_lora",
    "from_loras",
    "gates_of",
    "load",
    "pipeline",
    "plan",
    "plot_gates",
    "push_to_hub",
    "stream",
    "styled",
    "styles_of",
    "tag",
    "teacher_pairs",
    "transfer",
    "transfer_best",
    "transfer_files",
    "write",
    "write_card",
    "write_report",
]

_AT_FIRST_USE = {
    "EditTeacher": "teacher",
    "Evaluation": "evaluation",
    "GameMonitor": "trainer",
    "StyleCollator": "data",
    "StyleDiscriminator": "adversary",
    "StyleGame": "game",
    "StyleJudge": "metrics",
    "StylePipeline": "inference",
    "StyleTrainer": "trainer",
    "StyleTrainingArguments": "arguments",
    "StyleTransferEvaluator": "evaluation",
    "best_pairs": "self_training",
    "classify": "inference",
    "export_lora": "export",
    "from_loras": "loras",
    "load": "inference",
    "pipeline": "inference",
    "plan": "planning",
    "plot_gates": "plots",
    "stream": "inference",
    "tag": "inference",
    "teacher_pairs": "teacher",
    "transfer": "inference",
    "transfer_best": "inference",
    "transfer_files": "files",
    "write": "inference",
    "write_report": "training",
}


def __getattr__(name: str) -> Any:
    """A public name whose module is imported at first use: `import style_adapter` costs little more than PEFT."""
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module 'style_adapter' has no attribute {name!r}")
    return getattr(import_module(f".{_AT_FIRST_USE[name]}", __name__), name)
