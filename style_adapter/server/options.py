"""How a server runs: every option once, with the help line that the terminal repeats."""

from dataclasses import dataclass
from typing import Any

from ..arguments.options import check_options, option

_REMEDY: dict[str, Any] = {"remedy": "correct it in ServerOptions, or the option of `style-adapter serve`"}


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens, how it batches, and what it refuses."""

    host: str = option("127.0.0.1", "Address to listen at; 0.0.0.0 lets other machines in", **_REMEDY)
    port: int = option(8000, "Port to listen at; 0 takes a free one and prints it", bounds=">= 0", **_REMEDY)
    batch_size: int = option(32, "Most texts written at once", bounds=">= 1", **_REMEDY)
    batch_wait_ms: float | int = option(
        5.0, "Milliseconds that a text waits for others to be written with it", bounds=">= 0", **_REMEDY
    )
    max_queue: int = option(
        256, "Most texts that wait; a request beyond that is answered 429", bounds=">= 1", **_REMEDY
    )
    max_new_tokens: int = option(1024, "Most tokens of a text that a request may ask for", bounds=">= 1", **_REMEDY)
    max_n: int = option(16, "Most texts for one prompt", bounds=">= 1", **_REMEDY)
    max_body_kib: int = option(1024, "Most KiB of a request's body", bounds=">= 1", **_REMEDY)
    api_key: str | None = option(
        None, "What requests must bring as a bearer token; STYLE_ADAPTER_API_KEY if left out, none if that is not set"
    )

    def __post_init__(self) -> None:
        """Checks the bounds."""
        check_options(self)
