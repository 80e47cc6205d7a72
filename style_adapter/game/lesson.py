"""One teacher-forced pass of the generator: prompts, what follows them, and in which styles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..data import with_targets
from ..functional import IGNORED
from ..style import StyleCode

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Lesson:
    """Prompts with the texts that follow them, one style a row.

    Attributes:
        input_ids: [batch, prompt + target] for decoders, [batch, prompt] where the target is kept apart.
        attention_mask: 1 at each row's own tokens.
        labels: The targets' tokens, -100 at padding.
        code: The style of each row, noise and all.
        weights: Of each target token in the likelihood; None for 1.
    """

    input_ids: Int[Tensor, "batch seq"]
    attention_mask: Int[Tensor, "batch seq"]
    labels: Int[Tensor, "batch target"]
    code: StyleCode
    weights: Float[Tensor, "batch target"] | None = None

    @classmethod
    def of(cls, batch: Batch, code: StyleCode) -> "Lesson":
        """The lesson of a collated batch."""
        return cls(batch["input_ids"], batch["attention_mask"], batch["labels"], code, batch["token_weights"])

    @classmethod
    def rejected(cls, batch: Batch, code: StyleCode) -> "Lesson":
        """The lesson of the worse targets, of the rows that have one."""
        named = {name: batch[f"rejected_{name}"] for name in ("input_ids", "attention_mask", "labels")}
        return cls(**named, code=keep_rows(code, batch["preferred"]))

    @classmethod
    def written(
        cls,
        prompts: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        code: StyleCode,
        *,
        pad: int,
        decoder_only: bool,
    ) -> "Lesson":
        """The lesson of texts as token ids, on the device of `code`."""
        laid_out = with_targets(prompts, targets, pad, decoder_only=decoder_only)
        return cls(**{name: tensor.to(code.ids.device) for name, tensor in laid_out.items()}, code=code)

    @property
    def mask(self) -> Bool[Tensor, "batch target"]:
        """Where a target has a token."""
        return self.labels != IGNORED

    @property
    def row_of(self) -> Int[Tensor, " tokens"]:
        """The row of each target token, in the order of `labels[mask]`."""
        return self.mask.nonzero()[:, 0]

    def prompts(self, *, decoder_only: bool) -> list[list[int]]:
        """Token ids of each prompt."""
        width = self.input_ids.shape[1] - (self.labels.shape[1] if decoder_only else 0)
        return own_tokens(self.input_ids[:, :width], self.attention_mask[:, :width].bool())

    def targets(self) -> list[list[int]]:
        """Token ids of each target."""
        return own_tokens(self.labels, self.mask)

    def per_row(self, values: Float[Tensor, " tokens"]) -> Float[Tensor, " batch"]:
        """The sum over the target tokens of each row."""
        return values.new_zeros(self.labels.shape[0]).index_add(0, self.row_of, values)

    def weighted(self, values: Float[Tensor, " tokens"]) -> Float[Tensor, " batch"]:
        """The sum over the target tokens of each row, each times its weight: of surprises the likelihood."""
        return self.per_row(values if self.weights is None else values * self.weights[self.mask])

    def keep(self, rows: Bool[Tensor, " batch"]) -> "Lesson":
        """The lesson of some rows."""
        kept: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors: dict[str, Any] = {name: value[rows] for name, value in kept.items() if isinstance(value, Tensor)}
        return replace(self, **tensors, code=keep_rows(self.code, rows))

    def with_noise(self, noise: Tensor | None) -> "Lesson":
        """The same with other noise."""
        return replace(self, code=replace(self.code, noise=noise))


def keep_rows(code: StyleCode, rows: Bool[Tensor, " batch"]) -> StyleCode:
    """The code of some rows of a batch."""
    tensors: dict[str, Any] = {name: value[rows] for name, value in vars(code).items() if isinstance(value, Tensor)}
    return replace(code, **tensors)


def own_tokens(ids: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> list[list[int]]:
    """The tokens of each row where `mask` is set."""
    return [row[own].tolist() for row, own in zip(ids.cpu(), mask.cpu(), strict=True)]


def dense_weights(code: StyleCode, n_styles: int) -> Float[Tensor, "rows n_styles"]:
    """The weights of a code spread over all styles, as the discriminator's label."""
    return torch.zeros(code.ids.shape[0], n_styles, device=code.ids.device).scatter_add(1, code.ids, code.weights)
