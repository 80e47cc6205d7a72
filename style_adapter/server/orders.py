"""From what a request says to the rows that are written for it."""

import math
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data import plain_ids, prompt_ids, room
from ..inference import StylePipeline, prompt_of
from ..inference.writing import DRAWN, TOP_K
from ..model import styled
from ..seeds import generator_of, row_seed
from ..style import Style
from .bodies import Body, ChatBody, CompletionBody
from .engine import Engine
from .errors import ApiError
from .rows import Draw, Row

MOST_WEIGHT = 1000  # of a style: far beyond what a text survives, far below where numbers run over


@dataclass(frozen=True)
class Order:
    """What is written for one request.

    Attributes:
        rows: The texts, those of one prompt side by side.
        prompt_tokens: How many tokens are read, each prompt once.
    """

    rows: list[Row]
    prompt_tokens: int

    def drop(self) -> None:
        """Nobody wants it any more."""
        for row in self.rows:
            row.dropped = True


@dataclass(frozen=True)
class _Way:
    """What the rows of a request share."""

    style: Style
    strength: tuple[tuple[str, float], ...]
    draw: Draw
    noise_scale: float
    seed: int


class Desk:
    """Takes orders: checks what is asked against the model, and makes rows of it.

    Args:
        pipe: Model, tokenizer and task.
        engine: For its bounds.
    """

    def __init__(self, pipe: StylePipeline, engine: Engine) -> None:
        """Nothing is asked yet."""
        self.pipe, self.engine, self.options = pipe, engine, engine.options
        self._rewrites = pipe.task == "transfer"
        self._lock = threading.Lock()  # a tokenizer is not safe in two threads

    def completion(self, body: CompletionBody) -> Order:
        """The rows of `/v1/completions`, each prompt with the adapter's own prompt around it."""
        return self._order(body, body.prompts, self._read(body.prompts))

    def chat(self, body: ChatBody) -> Order:
        """The rows of `/v1/chat/completions`: the user's last message rewritten, or the conversation continued.

        Raises:
            ApiError: 400: no message of a user, or a conversation that the backbone has no template for.
        """
        if not self._rewrites:
            return self._order(body, ["conversation"], [self._talk(body)])
        texts = [message.text for message in body.messages if message.role == "user"][-1:]
        if not texts:
            raise ApiError(400, "messages must hold one of role 'user', whose text is rewritten", param="messages")
        return self._order(body, texts, self._read(texts))

    def style(self, words: str) -> Style:
        """The style that a model's name means.

        Raises:
            ApiError: 404 for a name that no style has, 400 for a mixture that cannot be read or is too strong.
        """
        try:
            style = self.pipe.styles.parse(words)
        except RecursionError as error:
            raise ApiError(400, "model is nested too deeply; write the mixture as a sum", param="model") from error
        except ValueError as error:
            text = str(error).replace("styles=", "model=", 1)
            if str(error).startswith(f"styles={words!r}, column "):
                raise ApiError(400, text, param="model") from error
            raise ApiError(404, text, param="model", code="model_not_found") from error
        return _bounded(style, "model")

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the adapter's prompt around each text."""
        with self._lock:
            return prompt_ids(self.pipe.tokenizer, prompt_of(self.pipe.model), texts)

    def _talk(self, body: ChatBody) -> list[int]:
        """Token ids of a conversation by the backbone's template, up to where the answer begins."""
        roles = {"developer": "system"}  # which templates do not know
        turns = [{**(m.model_extra or {}), "role": roles.get(m.role, m.role), "content": m.text} for m in body.messages]
        tokenizer: Any = self.pipe.tokenizer
        if not tokenizer.chat_template:
            raise ApiError(400, "messages need a backbone with a chat template; use /v1/completions", param="messages")
        try:
            with self._lock:
                text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
                return plain_ids(tokenizer, [str(text)])[0]
        except Exception as error:  # whatever a template raises is about the conversation
            raise ApiError(400, f"messages do not fit the backbone's template: {error}", param="messages") from error

    def _order(self, body: Body, texts: Sequence[str], prompts: Sequence[list[int]]) -> Order:
        """`n` rows of each prompt.

        Raises:
            ApiError: 400, more rows or tokens than may be asked for.
        """
        n = body.n or 1
        if n > self.options.max_n:
            raise ApiError(400, f"n={n} must be at most {self.options.max_n}; ask again for more", param="n")
        if n * len(prompts) > self.options.max_queue:
            text = f"prompt: {len(prompts)} times n={n} must be at most {self.options.max_queue} texts; send fewer"
            raise ApiError(400, text, param="prompt")
        way = self._way(body)
        rows: list[Row] = []
        for number, (text, ids) in enumerate(zip(texts, prompts, strict=True)):
            most = self._most(body, len(ids))
            given = text if self._rewrites and not text.strip() else None
            for sample in range(n):
                rows.append(
                    Row(
                        place=len(rows),
                        prompt=ids,
                        style=way.style,
                        most=most,
                        draw=way.draw,
                        seed=row_seed(way.seed, sample, number, use="text"),
                        stops=body.stops,
                        strength=way.strength,
                        noise=self._noise(way, sample, number),
                        given=given,
                    )
                )
        return Order(rows, sum(map(len, prompts)))

    def _way(self, body: Body) -> _Way:
        """Style, strength, and how tokens are drawn: the likeliest ones of a rewrite unless a temperature is given."""
        style, strength = self.style(body.model), body.strength
        blocks: tuple[tuple[str, float], ...] = ()
        if isinstance(strength, dict):
            blocks = tuple(sorted(strength.items()))
            self._check_blocks(style, strength)
        elif strength is not None:
            style = _bounded(style * strength, "strength")
        asked = (body.temperature, body.diversity, 0.0 if self._rewrites else 1.0)
        temperature = next(value for value in asked if value is not None)
        scale = body.diversity if body.diversity is not None else float(temperature > 0)
        draw = Draw(temperature, body.top_k or TOP_K, 1.0 if body.top_p is None else body.top_p)
        return _Way(style, blocks, draw, scale, secrets.randbits(62) if body.seed is None else body.seed)

    def _check_blocks(self, style: Style, strength: dict[str, float]) -> None:
        """Refuses factors that are too large, and names that are no part of a layer's."""
        if any(abs(factor) > MOST_WEIGHT for factor in strength.values()):
            raise ApiError(400, f"strength={strength} must be within +-{MOST_WEIGHT}; lower it", param="strength")
        try:
            with torch.no_grad(), styled(self.pipe.model, style, strength=strength):
                pass
        except ValueError as error:
            raise ApiError(400, str(error), param="strength") from error

    def _most(self, body: Body, prompt: int) -> int:
        """The bound of a text whose prompt has so many tokens.

        Raises:
            ApiError: 400: more than may be asked for, or more than the model's context holds.
        """
        asked, most, left = body.most, self.options.max_new_tokens, self.engine.left(prompt)
        name = "max_completion_tokens" if getattr(body, "max_completion_tokens", None) else "max_tokens"
        if asked is not None and asked > most:
            raise ApiError(400, f"{name}={asked} must be at most {most}; ask for fewer", param=name)
        if (asked or 1) > left:
            wanted = f" and {name}={asked}" if asked else ""
            raise ApiError(
                400,
                f"the prompt has {prompt} tokens{wanted}, and the model's context of {self.engine.context} must hold "
                "both; send less",
                param="messages" if isinstance(body, ChatBody) else "prompt",
                code="context_length_exceeded",
            )
        return min(room(prompt) if self._rewrites else DRAWN, most, left) if asked is None else asked

    def _noise(self, way: _Way, sample: int, number: int) -> Float[Tensor, "1 noise_dim"] | None:
        """z of a row, as `write` draws it; None for none."""
        bank = self.pipe.styles
        if not bank.noise_dim or way.noise_scale == 0:
            return None
        generator = generator_of(row_seed(way.seed, sample, number, use="noise"))
        return way.noise_scale * bank.sample_noise(1, generator=generator)


def _bounded(style: Style, name: str) -> Style:
    """`style`, unless a weight is beyond what numbers can carry."""
    if any(not math.isfinite(weight) or abs(weight) > MOST_WEIGHT for weight in style.weights.values()):
        raise ApiError(400, f"{name} makes {style}, whose weights must be within +-{MOST_WEIGHT}", param=name)
    return style
