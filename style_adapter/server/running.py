"""A server from its first byte to its last: it listens, and it ends when told to and no earlier than its answers."""

import socket
from types import FrameType

import uvicorn

from .app import Service, routes_of
from .options import ServerOptions


class StoppableServer(uvicorn.Server):
    """Refuses new requests after SIGTERM or SIGINT, ends once the open ones are answered; at the second signal at once.

    Args:
        service: What it serves.
        greeting: What is printed once it listens.
    """

    def __init__(self, service: Service, greeting: str) -> None:
        """Not listening yet."""
        super().__init__(uvicorn.Config(routes_of(service), log_level="warning", access_log=False))
        self.service, self.greeting = service, greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and says so."""
        await super().startup(sockets)
        print(self.greeting, flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end, asked ten times a second."""
        if self.service.stopping and not self.service.open:
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """At a signal. The base class would raise it again in the end: a process that has done its work exits 0."""
        if self.service.stopping:
            self.should_exit = self.force_exit = True
        self.service.stopping = True


def listen(options: ServerOptions) -> socket.socket:
    """A socket bound to the address, which refuses connections until the server runs.

    Raises:
        OSError: The address is not to be had; the message names it.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((options.host, options.port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise OSError(f"--host {options.host} --port {options.port} cannot be listened at: {error}") from error
    return bound


def run(service: Service, bound: socket.socket) -> None:
    """Serves at a bound socket until a signal comes."""
    host, port = bound.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    greeting = f"{len(service.pipe.styles)} styles of {service.name!r} at http://{address}:{port}/v1 (Ctrl-C ends it)"
    StoppableServer(service, greeting).run(sockets=[bound])
