"""What a request may say: OpenAI's fields that are honoured, those that change no text, and those that are refused."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ApiError

_Stop = Annotated[str, Field(min_length=1, max_length=200)]
_SEED = 2**63


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # padding against listeners, which changes no text


class Part(BaseModel):
    """A part of a message: text."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="allow")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    @property
    def text(self) -> str:
        """What it says."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Body(BaseModel):
    """What both routes take: OpenAI's fields, and `top_k`, `strength` and `diversity`."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    model: str = Field(min_length=1, max_length=500)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1, le=1000)
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-_SEED, lt=_SEED)
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    strength: float | dict[str, float] | None = None
    diversity: float | None = Field(None, ge=0, le=10)

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end a text."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def most(self) -> int | None:
        """The bound of a text's tokens; None where none is given."""
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionBody(Body):
    """What `/v1/completions` takes."""

    prompt: str | Annotated[list[str], Field(min_length=1)]

    @property
    def prompts(self) -> list[str]:
        """The prompts as a list."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class ChatBody(Body):
    """What `/v1/chat/completions` takes."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def most(self) -> int | None:
        """OpenAI's newer name of the bound, or the older one."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


Kind = TypeVar("Kind", bound=Body)

# Fields that change no text.
IGNORED = frozenset(
    ("metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
) | {"safety_identifier", "service_tier", "store", "user"}
# Fields that are not supported, and what may stand in them because it asks for nothing.
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "presence_penalty": (0, 0.0),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}


def read_body(kind: type[Kind], raw: bytes) -> Kind:
    """The body of a request, each field checked.

    Raises:
        ApiError: 400: no JSON, a field that is missing, out of its bounds, unknown or not supported.
    """
    try:
        body = kind.model_validate_json(raw)
    except ValidationError as error:
        raise _refusal(error) from error
    _check_extra(body)
    newer = getattr(body, "max_completion_tokens", None)
    if newer and body.max_tokens not in (None, newer):
        text = f"max_tokens={body.max_tokens} must be max_completion_tokens={newer}, its newer name; leave one out"
        raise ApiError(400, text, param="max_tokens")
    if body.stream_options and not body.stream:
        raise ApiError(400, "stream_options must come with stream=true; leave it out", param="stream_options")
    return body


def _refusal(error: ValidationError) -> ApiError:
    """The first thing that is wrong, by the name of its field."""
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    if not field:
        return ApiError(400, f"the body must be a JSON object: {first['msg']}")
    given = "" if first["type"] == "missing" else f"={_shown(first['input'])}"
    return ApiError(400, f"{field}{given}: {first['msg']}; correct it", param=str(first["loc"][0]))


def _check_extra(body: Body) -> None:
    """Refuses the first field that would be ignored although it asks for something."""
    for name, value in (body.model_extra or {}).items():
        if value is None or name in IGNORED or _asks_for_nothing(name, value, body):
            continue
        if name in NEUTRAL:
            text = f"{name}={_shown(value)} is not supported here; leave it out"
        else:
            known = ", ".join(sorted(type(body).model_fields))
            text = f"{name}={_shown(value)} is no field that is known here; the known ones are {known}"
        raise ApiError(400, text, param=name, code="unsupported_parameter")
    for message in getattr(body, "messages", ()):
        for name, value in (message.model_extra or {}).items():
            if value and name != "name":
                text = f"messages: {name}={_shown(value)} is not supported here; leave it out"
                raise ApiError(400, text, param="messages", code="unsupported_parameter")


def _asks_for_nothing(name: str, value: Any, body: Body) -> bool:
    """Whether the field changes nothing; True is no 1 here, nor False 0."""
    plain = [*NEUTRAL.get(name, ()), *([body.n] if name == "best_of" else [])]
    return any(type(value) is type(each) and value == each for each in plain)


def _shown(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
