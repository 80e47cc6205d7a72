"""What is read: `datasets` columns checked once, tokenised once, and collated into tensors of one shape a batch.

Transfer rows have `source`, `target` and `style`; classification rows have `text` (and `text_pair`), `label` and,
if styles matter, `style`. A style is whatever `StyleBank.parse` takes: a name, several names, {name: weight}, or
{"text_style": [...], "visual_style": [...]}.
"""

from .classification import ClassificationCollator, tokenize_classification
from .rows import COLUMNS, check_rows
from .styled import StyleCollator
from .tokens import StyleEncoding, chosen_rows, fill_prompt, pad, pad_and_mask, plain_ids
from .transfer import TransferCollator, tokenize_transfer

__all__ = [
    "COLUMNS",
    "ClassificationCollator",
    "StyleCollator",
    "StyleEncoding",
    "TransferCollator",
    "check_rows",
    "chosen_rows",
    "fill_prompt",
    "pad",
    "pad_and_mask",
    "plain_ids",
    "tokenize_classification",
    "tokenize_transfer",
]
