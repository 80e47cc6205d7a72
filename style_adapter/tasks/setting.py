"""What a task works on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import StyleTrainingArguments
from ..data import RowSeeds, StyleEncoding, StylePool
from ..fluency import BackboneScorer
from ..metrics import Judge
from ..model import styles_of


@dataclass(frozen=True)
class Setting:
    """What a task works on.

    Attributes:
        model: A model with a style adapter.
        tokenizer: The backbone's.
        args: The run's arguments.
        judge: Tells styles apart when transfers are scored.
        draws: The seeds of each row.
        trained_on: The training rows, as they were given.
        pool: The training texts by style, where they are unpaired.
        likelihoods: Of the sources met so far, under the backbone: see `BackboneScorer`.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    args: StyleTrainingArguments
    judge: Judge | None = None
    draws: RowSeeds = field(default_factory=RowSeeds)
    trained_on: Any = None
    pool: StylePool | None = None
    likelihoods: dict[str, float] = field(default_factory=dict)

    @property
    def scorer(self) -> BackboneScorer:
        """The backbone as it reads texts, for their fluency."""
        batch_size = self.args.generation_batch_size
        return BackboneScorer(self.model, self.tokenizer, batch_size=batch_size, remembered=self.likelihoods)

    @property
    def encode_styles(self) -> StyleEncoding:
        """A list of styles, one a row -> ids and weights."""
        bank = styles_of(self.model)

        def encode(styles: Sequence[Any]) -> tuple[Tensor, Tensor]:
            code = bank.code(list(styles))
            return code.ids, code.weights

        return encode


def row_ids_of(rows: Any) -> list[int]:
    """What names each row where something is drawn for it: its column `row_id`, or its place."""
    return list(rows["row_id"]) if "row_id" in rows.column_names else [*range(len(rows))]
