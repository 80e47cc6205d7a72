"""What is read: `datasets` columns checked once, tokenised once, and collated into tensors of one shape a batch.

Transfer rows have `source`, `target`, `style` and maybe `synthetic`, true for a target that a program made, or `text`
and `style` where no text has a counterpart;
classification rows have `text` (and `text_pair`), `label` and, if styles matter, `style`; for token classification
`text` is a list of words (or a text, split at white space) and `label` as many classes. Masked rows have `text` and, if
styles matter, `style`; rows of generation have `text`, `style` and maybe `prompt`. A style is whatever
`StyleBank.parse` takes: a name, several names, {name: weight}, or {"text_style": [...], "visual_style": [...]}.
"""

from .classification import ClassificationCollator, tokenize_classification
from .clock import Clock, RowSeeds, chosen_rows
from .generation import as_transfer, prompts_of
from .masked import MaskedCollator, tokenize_masked
from .pool import StylePool
from .rows import check_compared, check_rows, compares, kind_of_rows
from .styled import StyleCollator
from .token_classification import align_words, tokenize_token_classification, words_of
from .tokens import (
    StyleEncoding,
    chat_prompt,
    closed_ids,
    fill_prompt,
    pad,
    pad_and_mask,
    plain_ids,
    prompt_ids,
    room,
    with_targets,
)
from .transfer import TransferCollator, tokenize_transfer
from .unpaired import EitherCollator, UnpairedCollator, tokenize_unpaired

__all__ = [
    "ClassificationCollator",
    "Clock",
    "EitherCollator",
    "MaskedCollator",
    "RowSeeds",
    "StyleCollator",
    "StyleEncoding",
    "StylePool",
    "TransferCollator",
    "UnpairedCollator",
    "align_words",
    "as_transfer",
    "chat_prompt",
    "check_compared",
    "check_rows",
    "compares",
    "chosen_rows",
    "closed_ids",
    "fill_prompt",
    "kind_of_rows",
    "pad",
    "pad_and_mask",
    "plain_ids",
    "prompt_ids",
    "prompts_of",
    "room",
    "tokenize_classification",
    "tokenize_masked",
    "tokenize_token_classification",
    "tokenize_transfer",
    "tokenize_unpaired",
    "with_targets",
    "words_of",
]
