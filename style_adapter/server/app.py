"""The routes: OpenAI's completions, chat and models; health and metrics."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..inference import WRITERS, StylePipeline
from .answers import Answer, ChatAnswer, event, model_entry
from .bodies import Body, ChatBody, CompletionBody, Kind, read_body
from .engine import Engine
from .errors import ApiError, error_body
from .listening import Listener
from .options import ServerOptions
from .orders import Desk, Order

_ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics")
_DRAINED = 8  # times the bound of a body that is read and thrown away, so that its sender hears why


class Service:
    """One adapter behind its routes.

    Args:
        pipe: Model, tokenizer and task.
        options: How it runs and what it refuses.
        name: What `/health` and `/v1/models` call the adapter.

    Attributes:
        open: How many requests are being answered.
        stopping: Set to refuse new ones.

    Raises:
        ValueError: An adapter that writes no text.
    """

    def __init__(self, pipe: StylePipeline, options: ServerOptions, name: str) -> None:
        """Not started yet."""
        if pipe.task not in WRITERS:
            raise ValueError(f"task={pipe.task!r} must be one of {', '.join(WRITERS)} to be served; use the pipeline")
        self.pipe, self.options, self.name = pipe, options, name
        self.engine = Engine(pipe, options)
        self.desk = Desk(pipe, self.engine)
        self.created, self.open, self.stopping = int(time.time()), 0, False

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Inside the block texts are written; at its end those that wait are written first."""
        self.engine.start()
        yield
        await run_in_threadpool(self.engine.stop)

    async def authorised(self, request: Request) -> None:
        """Refuses a request without the key."""
        key = self.options.api_key
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and not hmac.compare_digest(given.encode("latin-1"), key.encode()):
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def models(self) -> Response:
        """Each style as a model."""
        entries = [model_entry(name, self.created, self.name) for name in self.pipe.styles]
        return JSONResponse({"object": "list", "data": entries})

    async def model(self, model: str) -> Response:
        """One style, or a mixture, if it can be read."""
        self.desk.style(model)
        return JSONResponse(model_entry(model, self.created, self.name))

    async def completions(self, request: Request) -> Response:
        """Texts from prompts, or rewrites of them."""
        return await self._answer(request, CompletionBody, self.desk.completion, Answer)

    async def chat(self, request: Request) -> Response:
        """A conversation continued, or its last message rewritten."""
        return await self._answer(request, ChatBody, self.desk.chat, ChatAnswer)

    async def health(self) -> Response:
        """Whether requests are taken."""
        state = "stopping" if self.stopping else "ready" if self.engine.alive else "failed"
        found = {"status": state, "model": self.name, "task": self.pipe.task, "styles": len(self.pipe.styles)}
        return JSONResponse(found, 200 if state == "ready" else 503)

    async def metrics(self) -> Response:
        """What Prometheus reads."""
        return Response(self.engine.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def _answer(
        self, request: Request, kind: type[Kind], order_of: Callable[[Kind], Order], answer_of: type[Answer]
    ) -> Response:
        """Reads the body, has its rows written, and answers at once or piece by piece."""
        if self.stopping:
            raise ApiError(503, "the server is stopping; ask another one", code="stopping")
        body = read_body(kind, await self._raw(request))
        order = await run_in_threadpool(order_of, body)
        listener = Listener(order)
        listener.begin(self.engine)
        answer = answer_of(body.model, order.prompt_tokens, listener.texts)
        if body.stream:
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(streamed(listener, answer, body), media_type="text/event-stream", headers=headers)
        return await unless_left(request, listener, answer)

    async def _raw(self, request: Request) -> bytes:
        """The body, if it is not too large."""
        most, raw, size = self.options.max_body_kib * 1024, bytearray(), 0
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) <= _DRAINED * most:
            async for part in request.stream():
                size += len(part)
                if size <= most:
                    raw += part
                elif size > _DRAINED * most:
                    break
        if size > most or (declared.isdecimal() and int(declared) > most):
            raise ApiError(413, f"the body must have at most {most} bytes; send less", headers={"Connection": "close"})
        return bytes(raw)


async def streamed(listener: Listener, answer: Answer, body: Body) -> AsyncIterator[str]:
    """The events of a stream; what nobody reads any more is dropped."""
    usage: dict[str, Any] = {"usage": None} if body.wants_usage else {}
    try:
        for opening in answer.opening():
            yield event(opening | usage)
        async for place, piece, reason in listener.pieces():
            yield event(answer.chunk(place, piece, reason) | usage)
        if body.wants_usage:
            yield event(answer.closing())
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield event(error.body())
    finally:
        listener.order.drop()


async def unless_left(request: Request, listener: Listener, answer: Answer) -> Response:
    """The whole answer, unless the client leaves before it is there."""
    written = asyncio.ensure_future(listener.whole())
    left = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({written, left}, return_when=asyncio.FIRST_COMPLETED)
        if not written.done():
            return Response(status_code=499)  # nobody reads it; it is counted
        written.result()
        return JSONResponse(answer.whole())
    finally:
        listener.order.drop()
        written.cancel()
        left.cancel()


async def _disconnected(request: Request) -> None:
    """Waits until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Counted:
    """Around all routes: how many requests are open, and what became of each.

    Args:
        app: What is called.
        service: Whose requests they are.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        """Nothing is counted yet."""
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, from its first byte to the last of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), "499"  # as long as no answer has begun

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        path = scope["path"]
        route = next((route for route in _ROUTES if path == route or path.startswith(f"{route}/")), "other")
        self.service.open += 1
        try:
            await self.app(scope, receive, noted)
        except Exception:
            status = "500"
            raise
        finally:
            self.service.open -= 1
            self.service.engine.metrics.answered(route, status, time.perf_counter() - started)


async def refused(request: Request, error: Exception) -> Response:
    """The answer to a request that is refused."""
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, dict(error.headers))


async def unrouted(request: Request, error: Exception) -> Response:
    """The answer where there is no such route or method."""
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path} is not served here: {error.detail}"
    return JSONResponse(error_body(error.status_code, text), error.status_code, error.headers)


async def failed(request: Request, error: Exception) -> Response:
    """The answer where the server itself is wrong; its log says why."""
    return JSONResponse(error_body(500, "the server failed; its log says why"), 500)


def routes_of(service: Service) -> FastAPI:
    """The routes of a service, for any ASGI server."""
    app = FastAPI(lifespan=service.running, docs_url=None, redoc_url=None, openapi_url=None)
    guarded = [Depends(service.authorised)]
    for path, endpoint, method in (
        ("/v1/models", service.models, "GET"),
        ("/v1/models/{model:path}", service.model, "GET"),
        ("/v1/completions", service.completions, "POST"),
        ("/v1/chat/completions", service.chat, "POST"),
    ):
        app.add_api_route(path, endpoint, methods=[method], dependencies=guarded)
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_api_route("/metrics", service.metrics, methods=["GET"])
    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(Exception, failed)
    app.add_middleware(Counted, service=service)
    return app
