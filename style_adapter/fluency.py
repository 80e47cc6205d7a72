"""How likely the frozen backbone finds a text: the fluency in J."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor

from ._peft import PREFIX
from .metrics import LanguageScorer
from .model import head_reads, styled
from .style import OFF


@dataclass(frozen=True)
class BackboneScorer(LanguageScorer):
    """The backbone of a model with a style adapter as a `LanguageScorer`, the style OFF: no second model is loaded."""

    model: PeftModel

    @property
    def reads(self) -> bool:
        """Whether the backbone gives each token a probability from those before it."""
        base: Any = self.model.get_base_model()
        return base.can_generate() and not base.config.is_encoder_decoder

    def fluency(self, outputs: Sequence[str], sources: Sequence[str]) -> Float[np.ndarray, " lines"]:
        """min(1, exp(l(y_i) - l(x_i))) of each output y and its source x; 1 where the backbone is no causal model."""
        if not self.reads:
            return np.ones(len(outputs))
        if not _stays(self.model):
            self.remembered.clear()
        return super().fluency(outputs, sources)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """The adapter off."""
        with styled(self.model, OFF):
            yield

    def _logits(
        self, inputs: Int[Tensor, "batch seq"], kept: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, "tokens vocab"]:
        """The head over the vocabulary runs at the tokens that predict a kept one, and nowhere else."""
        with head_reads(self.model, lambda hidden: hidden[:, :-1][kept[:, 1:]]):
            return self.model(input_ids=inputs, attention_mask=kept.long(), use_cache=False).logits


def _stays(model: PeftModel) -> bool:
    """Whether training leaves the backbone alone, so that what it finds likely stays what it was."""
    return not any(p.requires_grad and PREFIX not in name for name, p in model.named_parameters())
