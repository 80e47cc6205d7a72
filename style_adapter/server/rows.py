"""A text to write, and what is told of it while it is written."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from ..style import Style


@dataclass(frozen=True)
class News:
    """What has happened to a text.

    Attributes:
        text: What has been added to it.
        reason: Why it has ended, as `finish_reason` says it; None before.
        tokens: How many tokens were written, the one that ended it included; known at the end.
        error: Why it will never end well.
    """

    text: str = ""
    reason: str | None = None
    tokens: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Draw:
    """How the tokens of a text are chosen.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest.
        top_k: How many of the likeliest may be drawn.
        top_p: Least probability that those which may be drawn have together.
    """

    temperature: float | int = 0.0
    top_k: int = 64
    top_p: float | int = 1.0


def _tell_nobody(place: int, news: News) -> None:
    """Where nobody listens."""


@dataclass(eq=False)
class Row:
    """One text of one request: rows of any requests are written together.

    Attributes:
        place: Its index among the choices of its request.
        prompt: Token ids.
        style: With a strength that is a number multiplied in.
        most: Bound of its tokens.
        draw: How its tokens are chosen.
        seed: What they are drawn from.
        stops: Texts that end it.
        strength: Factors by block, in a fixed order; empty for 1 everywhere.
        noise: z, where the adapter has noise and this text takes some.
        given: The text itself, where there is nothing to write.
        tell: Called with `place` and the news, by the thread that writes.
        dropped: Set by whoever does not want it any more.
        arrived: When it began to wait, by the monotonic clock.
    """

    place: int
    prompt: list[int]
    style: Style
    most: int
    draw: Draw = Draw()
    seed: int = 0
    stops: tuple[str, ...] = ()
    strength: tuple[tuple[str, float | int], ...] = ()
    noise: Float[Tensor, "1 noise_dim"] | None = None
    given: str | None = None
    tell: Callable[[int, News], None] = _tell_nobody
    dropped: bool = False
    arrived: float = field(default_factory=time.monotonic)

    @property
    def factors(self) -> float | Mapping[str, float | int]:
        """The strength as `generate` takes it."""
        return dict(self.strength) or 1.0
