"""An adapter behind OpenAI's HTTP API: its styles as models, requests of any styles written together."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from .options import ServerOptions

__all__ = ["ServerOptions", "build_app", "serve"]

# What a server needs is imported when it runs: the terminal reads the options alone.


def serve(
    adapter: str,
    options: ServerOptions | None = None,
    *,
    base: str | None = None,
    dtype: str = "auto",
    task: str | None = None,
) -> None:
    """Serves an adapter until SIGINT or SIGTERM: then new requests are refused and the open ones answered.

    Args:
        adapter: Folder or hub id.
        options: Where it listens, how it batches, what it refuses.
        base: Folder or hub id of the backbone, where the recorded one is not at hand.
        dtype: Precision of the frozen weights.
        task: transfer, whose prompts are rewritten, or generation, whose prompts are continued.

    Raises:
        ValueError: An adapter that writes no text, an option out of its bounds, or as `load`.
        ImportError: A package that a server needs is missing.
        OSError: The address is not to be had.
    """
    _check_packages()
    from ..inference import pipeline
    from .app import Service
    from .running import listen, run

    options = options or ServerOptions()
    options = replace(options, api_key=options.api_key or os.environ.get("STYLE_ADAPTER_API_KEY") or None)
    bound = listen(options)  # before the model is loaded: a port that is taken is said at once
    pipe = pipeline(adapter, base=base, dtype=dtype, task=task, batch_size=options.batch_size)
    run(Service(pipe, options, Path(adapter).name), bound)


def build_app(pipe: Any, options: ServerOptions | None = None, *, name: str = "style_adapter") -> Any:
    """A `StylePipeline` as an ASGI application, for a server of your own.

    Args:
        pipe: From `style_adapter.pipeline`.
        options: How it batches, what it refuses.
        name: What it calls the adapter.
    """
    _check_packages()
    from .app import Service, routes_of

    return routes_of(Service(pipe, options or ServerOptions(), name))


def _check_packages() -> None:
    """Says what to install where something is missing."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as missing:
        raise ImportError(f"a server needs {missing.name}; pip install 'style_adapter[serve]'") from missing
