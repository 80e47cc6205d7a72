"""What Prometheus reads: requests, how long they took, the queue, the batches, the tokens."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The numbers of one server.

    Args:
        waiting: How many texts wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        """In a registry of its own, so that a process may hold several servers."""
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"namespace": "style_adapter", "registry": self.registry}
        self._requests = Counter("requests", "Requests answered.", ["route", "status"], **named)
        self._seconds = Histogram(
            "request_seconds", "Seconds from a request to the end of its answer.", ["route"], buckets=_SECONDS, **named
        )
        self._batch = Histogram("batch_size", "Texts written together.", buckets=_ROWS, **named)
        self._tokens = Counter("generated_tokens", "Tokens written.", **named)
        Gauge("queue_length", "Texts that wait.", **named).set_function(waiting)

    def answered(self, route: str, status: str, seconds: float) -> None:
        """A request was answered, or left."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, rows: int) -> None:
        """A batch begins."""
        self._batch.observe(rows)

    def written(self, tokens: int) -> None:
        """A text has ended."""
        self._tokens.inc(tokens)

    def page(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self.registry)
