"""What the generator wrote, as embeddings that the discriminator can read and a gradient can pass."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from ..estimators import gumbel_embeddings, sample_tokens, sampled_embeddings, soft_embeddings
from ..functional import straight_through_embeddings
from ..seeds import gumbel_tokens, seeds_for
from .lesson import Lesson
from .rules import GameRules


@dataclass(frozen=True)
class Fakes:
    """Texts of the generator, one a row.

    Attributes:
        lesson: The prompts, and the positions of the written tokens.
        logits: What the generator gave each written token, with its gradient.
        seeds: The seed of each row.
        tokens: The written tokens; None where the estimator chooses them from `logits`.
    """

    lesson: Lesson
    logits: Float[Tensor, "tokens vocab"]
    seeds: Int[Tensor, " rows"]
    tokens: Int[Tensor, " tokens"] | None = None

    def gumbel(self, width: int) -> Float[Tensor, "tokens width"]:
        """Gumbel noise of each token, by its row's seed."""
        seeds = seeds_for(self.seeds.tolist(), "gumbel")
        lengths = self.lesson.mask.sum(-1).tolist()
        return gumbel_tokens(seeds, lengths, width).to(self.logits.device)


Estimate = tuple[Int[Tensor, " tokens"], Float[Tensor, "tokens dim"]]
Estimator = Callable[[Fakes, Float[Tensor, "vocab dim"], GameRules], Estimate]


def straight_through(fakes: Fakes, table: Float[Tensor, "vocab dim"], rules: GameRules) -> Estimate:
    """The likeliest token; the gradient of the softmax."""
    return fakes.logits.argmax(-1), straight_through_embeddings(fakes.logits, table, temperature=rules.temperature)


def gumbel(fakes: Fakes, table: Float[Tensor, "vocab dim"], rules: GameRules) -> Estimate:
    """A sampled token; the gradient of the softmax, noise and all."""
    noise = fakes.gumbel(fakes.logits.shape[-1])
    tokens = (fakes.logits + noise).argmax(-1)
    return tokens, gumbel_embeddings(fakes.logits, table, noise, temperature=rules.temperature)


def soft(fakes: Fakes, table: Float[Tensor, "vocab dim"], rules: GameRules) -> Estimate:
    """The mixture of the likeliest tokens, with its own gradient."""
    embedded = soft_embeddings(fakes.logits, table, temperature=rules.temperature, top_k=rules.top_k)
    return fakes.logits.argmax(-1) if fakes.tokens is None else fakes.tokens, embedded


def sampled(fakes: Fakes, table: Float[Tensor, "vocab dim"], rules: GameRules) -> Estimate:
    """The written token, drawn here where none was; the gradient of the softmax over the likeliest."""
    tokens = fakes.tokens
    if tokens is None:
        tokens = sample_tokens(fakes.logits.detach(), fakes.gumbel(rules.top_k))
    return tokens, sampled_embeddings(tokens, fakes.logits, table, temperature=rules.temperature, top_k=rules.top_k)


def scored(fakes: Fakes, table: Float[Tensor, "vocab dim"], rules: GameRules) -> Estimate:
    """The written token, without gradient: the score function needs rewards alone."""
    return sampled(replace(fakes, logits=fakes.logits.detach()), table, rules)


ESTIMATES: dict[str, Estimator] = {
    "straight_through": straight_through,
    "gumbel": gumbel,
    "soft": soft,
    "sampled": sampled,
    "reinforce": scored,
}
