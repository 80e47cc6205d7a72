"""What is answered, in the shapes of OpenAI's two routes."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Written:
    """A text, as far as it is written.

    Attributes:
        text: The text.
        reason: Why it has ended; None before.
        tokens: How many tokens it has; known at the end.
    """

    text: str = ""
    reason: str | None = None
    tokens: int = 0


@dataclass
class Answer:
    """The answer to one request of `/v1/completions`.

    Attributes:
        model: What the request called the style.
        prompt_tokens: How many tokens were read.
        texts: What is written, one a choice.
        id: Of the answer and of each of its chunks.
        created: Seconds since 1970.
    """

    model: str
    prompt_tokens: int
    texts: Sequence[Written]
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    kind: str = "text_completion"
    chunk_kind: str = "text_completion"

    def whole(self) -> dict[str, Any]:
        """All choices at once."""
        choices = [self._choice(place, text) for place, text in enumerate(self.texts)]
        return {**self._head(self.kind), "choices": choices, "usage": self.usage()}

    def opening(self) -> Iterator[dict[str, Any]]:
        """The chunks before the first text."""
        yield from ()

    def chunk(self, place: int, piece: str, reason: str | None) -> dict[str, Any]:
        """A piece of one choice."""
        return self._chunk([{"index": place, "text": piece, "logprobs": None, "finish_reason": reason}])

    def closing(self) -> dict[str, Any]:
        """The chunk with the numbers of tokens."""
        return {**self._chunk([]), "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """How many tokens were read, each prompt once, and how many were written."""
        written = sum(text.tokens for text in self.texts)
        total = self.prompt_tokens + written
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": written, "total_tokens": total}

    def _choice(self, place: int, text: Written) -> dict[str, Any]:
        """One whole choice."""
        return {"index": place, "text": text.text, "logprobs": None, "finish_reason": text.reason}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A chunk with these choices."""
        return {**self._head(self.chunk_kind), "choices": choices}

    def _head(self, kind: str) -> dict[str, Any]:
        """What every part of the answer says."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


@dataclass
class ChatAnswer(Answer):
    """The answer to one request of `/v1/chat/completions`: each choice is a message of the assistant."""

    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"

    def opening(self) -> Iterator[dict[str, Any]]:
        """Whose message each choice is."""
        for place in range(len(self.texts)):
            yield self._delta(place, {"role": "assistant", "content": ""}, None)

    def chunk(self, place: int, piece: str, reason: str | None) -> dict[str, Any]:
        """A piece of one message."""
        return self._delta(place, {"content": piece} if piece else {}, reason)

    def _choice(self, place: int, text: Written) -> dict[str, Any]:
        """One whole message."""
        message = {"role": "assistant", "content": text.text, "refusal": None}
        return {"index": place, "message": message, "logprobs": None, "finish_reason": text.reason}

    def _delta(self, place: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        """A chunk with what is new of one message."""
        return self._chunk([{"index": place, "delta": delta, "logprobs": None, "finish_reason": reason}])


def model_entry(name: str, created: int, owner: str) -> dict[str, Any]:
    """A style, or a mixture, as an entry of `/v1/models`."""
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
