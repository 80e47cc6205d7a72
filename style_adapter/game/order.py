"""What the generator is asked to write, and real texts of the same style to compare it with."""

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..seeds import seeds_for
from ..style import StyleCode
from .lesson import Batch, dense_weights, keep_rows, own_tokens


@dataclass(frozen=True)
class Order:
    """Prompts to write for, one a row, and a real text of the same style.

    Attributes:
        source_ids: The prompts.
        source_mask: 1 at each prompt's own tokens.
        code: The style asked for, noise and all.
        real: Tokens of the real texts, -100 at padding.
        real_ids: The rows of the data set that these are.
        row_ids: The rows of the data set that ask.
        seeds: What each row's randomness is drawn from.
    """

    source_ids: Int[Tensor, "rows seq"]
    source_mask: Int[Tensor, "rows seq"]
    code: StyleCode
    real: Int[Tensor, "rows target"]
    real_ids: Int[Tensor, " rows"]
    row_ids: Int[Tensor, " rows"]
    seeds: Int[Tensor, " rows"]

    @classmethod
    def of(cls, batch: Batch, code: StyleCode, *, decoder_only: bool) -> "Order":
        """The order in a collated batch; a paired row's target is its real text, if no other stands in for it."""
        real = (batch.get("real_labels", batch["labels"]), batch.get("real_ids", batch["row_ids"]))
        rows = (batch["row_ids"], batch["seeds"])
        if "source_ids" in batch:
            return cls(batch["source_ids"], batch["source_mask"], code, *real, *rows)
        width = batch["input_ids"].shape[1] - (batch["labels"].shape[1] if decoder_only else 0)
        prompts = (batch["input_ids"][:, :width], batch["attention_mask"][:, :width])
        return cls(*prompts, code, *real, *rows)

    def keep(self, rows: Bool[Tensor, " batch"]) -> "Order":
        """The order of some rows."""
        tensors = {name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, code=keep_rows(self.code, rows))

    @property
    def prompts(self) -> list[list[int]]:
        """Token ids of each prompt."""
        return own_tokens(self.source_ids, self.source_mask.bool())

    def draws(self, use: str) -> list[int]:
        """The seed of each row for one use."""
        return seeds_for(self.seeds.tolist(), use)

    def style(self, n_styles: int) -> Float[Tensor, "rows n_styles"]:
        """The weights of the style asked for, over all styles."""
        return dense_weights(self.code, n_styles)
