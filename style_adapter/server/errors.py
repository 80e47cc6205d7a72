"""What is wrong with a request, in OpenAI's form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_KINDS = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


@dataclass(eq=False)
class ApiError(Exception):
    """A request that is refused.

    Attributes:
        status: Of the answer.
        message: What is wrong, and what to do.
        param: The field of the body that is wrong.
        code: A word that programs can look for.
        headers: Of the answer.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """{"error": {"message", "type", "param", "code"}}."""
        return error_body(self.status, self.message, param=self.param, code=self.code)


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it.

    >>> error_body(404, "no such page")["error"]["type"]
    'invalid_request_error'
    """
    kind = _KINDS.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
