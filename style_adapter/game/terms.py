"""The losses of both sides, from what one step has on the table."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..adversary import Judgement, judge_detached
from ..losses import (
    discounted_returns,
    feature_matching,
    gradient_penalty,
    mean_matching,
    mode_seeking,
    reinforce,
    style_cross_entropy,
    token_cross_entropy,
)
from .fakes import Fakes
from .memory import GameMemory
from .reader import Texts
from .rules import GameRules, Verdict

GENERATOR_TERMS = ("ce", "rec", "bt", "pref", "adv", "feat", "cls", "div", "kl")
DISCRIMINATOR_TERMS = ("d_adv", "d_cls", "d_r1", "d_r2")


@dataclass(frozen=True)
class Twins:
    """Texts written for the same prompts with two noises.

    Attributes:
        first: Those of `noise_first`.
        second: Those of `noise_second`.
        noise_first: z1.
        noise_second: z2.
    """

    first: Texts
    second: Texts
    noise_first: Float[Tensor, "rows noise_dim"]
    noise_second: Float[Tensor, "rows noise_dim"]


@dataclass(frozen=True)
class Table:
    """What one step has on the table.

    Attributes:
        real: Real texts.
        fake: What the generator wrote in the same styles, with its gradient.
        old: Fakes as the discriminator sees them: the same without gradient, some of them old ones.
        style: The weights of the style asked for.
        fakes: The fakes' tokens and logits.
        tokens: The fakes' written tokens.
        twins: The same prompts written with two noises, where the game asks for it.
    """

    real: Texts
    fake: Texts
    old: Texts
    style: Float[Tensor, "rows n_styles"]
    fakes: Fakes
    tokens: Int[Tensor, " tokens"]
    twins: Twins | None = None


@dataclass(frozen=True)
class Sides:
    """Both sides' losses by the rules of a game.

    Attributes:
        judge: The discriminator.
        memory: Running means by style.
        verdict: The adversarial losses.
        rules: What is played for.
    """

    judge: nn.Module
    memory: GameMemory
    verdict: Verdict
    rules: GameRules

    def discriminator(self, table: Table, *, learn: bool) -> tuple[dict[str, Tensor], Judgement, Judgement]:
        """D's side: live weights, features detached; the real texts also teach its style head and the prototypes.

        Returns:
            The terms, the judgements of real texts and of fakes.
        """
        real, fake, style = table.real.features, table.old.features, table.style
        if self.rules.r1:
            real = real.detach().float().requires_grad_()
        if self.rules.r2:
            fake = fake.detach().float().requires_grad_()
        on_real: Judgement = self.judge(real, table.real.mask, style)
        on_fake: Judgement = self.judge(fake, table.old.mask, style)
        if learn:
            self.memory.prototypes.update(on_real.pooled.detach(), style)
        losses = {"d_adv": self.verdict.discriminator(on_real, on_fake, style)}
        if not self._has_fake_class:
            losses["d_cls"] = style_cross_entropy(on_real.style_logits, style)
        if self.rules.r1:
            losses["d_r1"] = gradient_penalty(on_real.realness, real)
        if self.rules.r2:
            losses["d_r2"] = gradient_penalty(on_fake.realness, fake)
        return losses, on_real, on_fake

    def generator(self, table: Table, on_real: Judgement, *, learn: bool) -> dict[str, Tensor]:
        """G's side: live features of what it wrote, D's weights and its judgements of real texts detached."""
        if self.rules.estimator == "reinforce":
            return {"adv": self.score_function(table, learn=learn)}
        fake, style = table.fake, table.style
        judgement = judge_detached(self.judge, fake.features, fake.mask, style)
        losses = {
            "adv": self.verdict.generator(_detached(on_real), judgement, style),
            "feat": self.matching(judgement.pooled, style, learn=learn),
        }
        if not self._has_fake_class:
            losses["cls"] = style_cross_entropy(judgement.style_logits, style)
        if table.twins is not None:
            losses["div"] = self.diversity(table.twins, style)
        return losses

    def matching(
        self, pooled: Float[Tensor, "rows dim"], style: Float[Tensor, "rows n_styles"], *, learn: bool
    ) -> Float[Tensor, " rows"]:
        """l(S(G(z)), S*): each fake near the prototype of its style, or the fakes' mean; 0 while either is unknown."""
        known = self.memory.prototypes.known(style)
        targets = self.memory.prototypes(style)
        if self.rules.matching == "row":
            return feature_matching(pooled, targets) * known
        means = self.memory.fakes
        if learn:
            means.update(pooled.detach(), style)
        return mean_matching(pooled, means(style), targets) * (known & means.known(style))

    def diversity(self, twins: Twins, style: Float[Tensor, "rows n_styles"]) -> Float[Tensor, " rows"]:
        """d(z1, z2) / d(phi(G(z1)), phi(G(z2))): other noise must give other features."""
        both = (twins.first, twins.second)
        first, second = (judge_detached(self.judge, texts.features, texts.mask, style).pooled for texts in both)
        return mode_seeking(first, second, twins.noise_first, twins.noise_second)

    def score_function(self, table: Table, *, learn: bool) -> Float[Tensor, " rows"]:
        """-sum_t (R_t - c) log p(y_t) / T with rewards r_t = 2 D(y_1..t) - 1 and the style's mean return c.

        A judge that reads prefixes rewards each token (de Masson d'Autume et al. 2019, arXiv 1905.09922).
        """
        fakes, mask, style = table.fakes, table.fake.mask, table.style
        with torch.no_grad():
            realness = self.judge.prefixes(table.fake.features, mask, style)  # type: ignore[operator]  # our judge
            rewards = (2 * realness.sigmoid() - 1).masked_fill(~mask, 0.0)
            returns = discounted_returns(rewards, mask, discount=self.rules.discount)
            lengths = mask.sum(-1).clamp(min=1)
            mean = (returns.sum(-1) / lengths)[:, None]
            baseline = self.memory.baseline
            known = baseline.known(style)
            level = baseline(style)[:, 0].where(known, mean[:, 0])
            if learn:
                baseline.update(mean, style)
        log_probs = -token_cross_entropy(fakes.logits[:, None], table.tokens[:, None])
        placed = log_probs.new_zeros(mask.shape).masked_scatter(mask, log_probs)
        return reinforce(placed, returns, mask, level) / lengths

    @property
    def _has_fake_class(self) -> bool:
        """Whether the adversarial term is over classes already, which makes those of the style head superfluous."""
        return getattr(self.judge, "kind", "") == "fake_class"


def _detached(judgement: Judgement) -> Judgement:
    """A judgement without its gradient."""
    return Judgement(*(tensor.detach() for tensor in vars(judgement).values()))
