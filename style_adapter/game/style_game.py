"""The game: generator and discriminator in one module, one forward, named losses.

The adapted backbone is the generator G(x, s, z); the discriminator reads the first blocks of the same backbone with
the adapter off. Accelerate wraps this module and nothing else, so every differentiable call of a step happens inside
its one forward (DDP and FSDP synchronise what passes there).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..adversary import Judgement, StyleDiscriminator, StylePrototypes, judge_detached
from ..functional import IGNORED
from ..losses import (
    Game,
    feature_matching,
    gradient_penalty,
    lookup_game,
    style_cross_entropy,
    token_cross_entropy,
)
from ..model import head_reads, styled, styles_of
from ..style import StyleCode
from .features import FrozenFeatures, backbone_of, width_of

Batch = Mapping[str, Tensor]

GENERATOR_TERMS = ("ce", "adv", "feat", "cls")
DISCRIMINATOR_TERMS = ("d_adv", "d_cls", "d_r1")


@dataclass(frozen=True)
class StepLosses:
    """What one forward of the game gives.

    Attributes:
        rows: Each term by name, one value a row ("ce": summed over the row's target tokens).
        scores: D's logits by name, detached, to watch the game: "real" and "fake".
    """

    rows: dict[str, Float[Tensor, " _rows"]]  # of all rows for "ce", of the judged ones for the others
    scores: dict[str, Float[Tensor, " _judged"]]


class StyleGame(nn.Module):
    """The PEFT model and its discriminator, trained against each other.

    Args:
        model: A model with a style adapter.
        discriminator: None trains without a game.
        game: A key of `losses.GAMES`.
        depth: How many of the backbone's blocks the discriminator reads.
        temperature: Of the straight-through softmax.
        smoothing: One-sided label smoothing on the real side.
        r1: Whether to compute the R1 penalty.
        prototype_rate: EMA rate of the style prototypes S*.
        backbone: What the discriminator reads where the model's own backbone trains too; see `frozen_copy`.

    Raises:
        ValueError: An unknown game, a `depth` that the backbone does not have, or one that trains.
    """

    accepts_loss_kwargs = False  # the trainer divides the sums by its own counts
    lockstep = False  # whether every process must run the same blocks: weights are gathered from all at each

    def __init__(  # noqa: PLR0913 - one option a part of the game
        self,
        model: PeftModel,
        discriminator: StyleDiscriminator | None,
        *,
        game: str = "non_saturating",
        depth: int = 4,
        temperature: float = 1.0,
        smoothing: float = 0.0,
        r1: bool = False,
        prototype_rate: float = 0.1,
        backbone: PreTrainedModel | None = None,
    ) -> None:
        """Fits the prototypes to the backbone's width and the adapter's styles."""
        super().__init__()
        self.model, self.discriminator = model, discriminator
        self.game: Game = lookup_game(game)
        self.temperature, self.smoothing, self.r1 = temperature, smoothing, r1
        self.features = FrozenFeatures(model, depth, backbone=backbone)
        if discriminator is not None:
            self.features.check_depth()
            self.features.check_frozen()
        self.n_styles = len(styles_of(model))
        self.prototypes = StylePrototypes(self.n_styles, width_of(model), rate=prototype_rate)

    @property
    def _no_split_modules(self) -> list[str]:
        """The backbone's blocks, where FSDP looks for what it wraps."""
        return list(getattr(backbone_of(self.model), "_no_split_modules", None) or ())

    def tie_weights(self) -> None:
        """Ties the backbone's weights again, as FSDP asks for after it has replaced them."""
        backbone_of(self.model).tie_weights()

    @property
    def config(self) -> Any:
        """The backbone's config, where Trainer looks for it."""
        return backbone_of(self.model).config

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Checkpoints the backbone's blocks, as Trainer asks for."""
        self.model.enable_input_require_grads()
        self.model.activation_checkpointing_enable(**options)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """The same, by the name that older releases of transformers give it."""
        self.model.enable_input_require_grads()
        self.model.gradient_checkpointing_enable(**options)

    def forward(self, *, play: bool = True, noise: Tensor | None = None, **batch: Tensor) -> StepLosses:
        """One step: generate, embed, features, judge; the losses of both sides.

        `play` False (warm-up, evaluation) gives the likelihood alone.
        """
        code = StyleCode(batch["style_ids"], batch["style_weights"], noise=noise)
        if batch["labels"].dim() == 1:  # a class a row
            logits = self.class_logits(batch, code)
            return StepLosses({"ce": token_cross_entropy(logits[:, None], batch["labels"][:, None])}, {})
        mask = batch["labels"] != IGNORED  # [batch, target]
        logits = self.generator_logits(batch, code, mask)  # G(x, s, z) [tokens, vocab]
        targets = batch["labels"][mask]
        row_of = mask.nonzero()[:, 0]  # [tokens]
        per_token = token_cross_entropy(logits[:, None], targets[:, None]) * batch["token_weights"][mask]
        rows = {"ce": per_token.new_zeros(mask.shape[0]).index_add(0, row_of, per_token)}
        judged = batch["judged"]
        if self.discriminator is None or not play or not (judged.any() or self.lockstep):
            return StepLosses(self._connected(rows), {})
        judged, counts = self._keep_step(judged)
        style = dense_weights(code, self.n_styles)[judged] * counts[:, None]  # [judged, n_styles]
        mask, seen = mask[judged], judged[row_of]
        read = self.features.embed(targets[seen], mask)
        written = self.features.embed_logits(logits[seen], mask, self.temperature)
        real = self.features(read, mask).detach()  # phi_k(x)
        fake = self.features(written, mask)  # phi_k(G(x, s, z))
        discriminator, scores = self.discriminator_losses(real, fake.detach(), mask, style)
        generator = self.generator_losses(scores["real"], fake, mask, style)
        game = {name: term * counts for name, term in (generator | discriminator).items()}
        return StepLosses(rows | game, {name: score[counts] for name, score in scores.items()})

    def class_logits(self, batch: Batch, code: StyleCode) -> Float[Tensor, "batch classes"]:
        """Logits of the model's own head, the style classifier."""
        with styled(self.model, code):
            return self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def generator_logits(
        self, batch: Batch, code: StyleCode, mask: Bool[Tensor, "batch target"]
    ) -> Float[Tensor, "tokens vocab"]:
        """Logits that predict the target tokens, and no others: the vocabulary's head costs more than a block."""
        inputs: dict[str, Any] = {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "use_cache": False,
        }
        with styled(self.model, code):
            if getattr(self.config, "is_encoder_decoder", False):
                return self.model(**inputs, labels=batch["labels"]).logits[mask]
            positions = (inputs["attention_mask"].cumsum(dim=-1) - 1).clamp(min=0)
            with head_reads(self.model, lambda hidden: hidden[:, :-1][mask]):  # the token before predicts
                return self.model(**inputs, position_ids=positions, logits_to_keep=mask.shape[1] + 1).logits

    def generator_losses(self, real_scores: Tensor, fake: Tensor, mask: Tensor, style: Tensor) -> dict[str, Tensor]:
        """G's side: live features of what it wrote, D's weights and its scores of real texts detached."""
        assert self.discriminator is not None
        judgement = judge_detached(self.discriminator, fake, mask, style)
        known = self.prototypes.known(style)
        return {
            "adv": self.game.generator(real_scores, judgement.realness),
            "feat": feature_matching(judgement.pooled, self.prototypes(style)) * known,
            "cls": style_cross_entropy(judgement.style_logits, style),
        }

    def discriminator_losses(
        self, real: Tensor, fake: Tensor, mask: Tensor, style: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """D's side: live weights, features detached; the real texts also teach its style head and the prototypes."""
        assert self.discriminator is not None
        if self.r1:
            real = real.float().requires_grad_()
        on_real: Judgement = self.discriminator(real, mask, style)
        on_fake: Judgement = self.discriminator(fake, mask, style)
        if self.training:
            self.prototypes.update(on_real.pooled.detach(), style)
        losses = {
            "d_adv": self.game.discriminator(on_real.realness, on_fake.realness, smoothing=self.smoothing),
            "d_cls": style_cross_entropy(on_real.style_logits, style),
        }
        if self.r1:
            losses["d_r1"] = gradient_penalty(on_real.realness, real)
        return losses, {"real": on_real.realness.detach(), "fake": on_fake.realness.detach()}

    @staticmethod
    def _keep_step(judged: Tensor) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " _judged"]]:
        """The judged rows, and which of them count: without any, the first row is run for the other processes' sake."""
        run = judged if judged.any() else torch.arange(len(judged), device=judged.device) == 0
        return run, judged[run]

    def _connected(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """`rows`, with D's weights in the graph at zero: DDP waits for a gradient of every parameter."""
        if self.discriminator is None or not torch.is_grad_enabled():
            return rows
        ce = rows["ce"]
        features = ce.new_zeros(1, 1, width_of(self.model))
        judged = self.discriminator(features, features[..., 0] == 0, ce.new_zeros(1, self.n_styles))
        nothing = sum(said.sum() for said in (judged.realness, judged.style_logits, judged.pooled)) * 0.0
        return {**rows, "ce": ce + nothing}


def dense_weights(code: StyleCode, n_styles: int) -> Float[Tensor, "rows n_styles"]:
    """The weights of a code spread over all styles, as the discriminator's label."""
    return torch.zeros(code.ids.shape[0], n_styles, device=code.ids.device).scatter_add(1, code.ids, code.weights)
