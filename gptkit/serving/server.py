"""The HTTP server: binding of the address, and a shutdown that lets running answers finish."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from gptkit.core.errors import GptkitError
from gptkit.serving.protocol import GuardedProtocol

__all__ = ["Server", "bind", "is_loopback"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_SLACK = 2.0
"""Seconds after the grace period in which failed answers are sent."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Raises:
        GptkitError: the address is in use, not one of this machine, or not permitted.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GptkitError(f"the host {host!r} is unknown: {reason}", hint="Use --host 127.0.0.1.") from None
    family, kind, protocol, _, address = addresses[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # until the server accepts connections, they wait
    except OSError as error:
        listener.close()
        raise GptkitError(f"cannot listen on {host} port {port}: {error.strerror}", hint=_remedy(error, port)) from None
    listener.setblocking(False)
    return listener


def _remedy(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Choose another port, as in --port {port + 1 if port < 65535 else 8000}, or --port 0 for any free one."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Ports below 1024 need special permissions; choose another one, as in --port 8000."
    return "Use an address of this machine, as in --host 127.0.0.1."


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Server(uvicorn.Server):
    """uvicorn's server, which ends with exit code 0 after SIGINT or SIGTERM.

    Then no more connections are accepted. Answers that run may finish for `grace` seconds; those that have not are failed by
    `end_answers`, so that their clients get an error. A second SIGINT ends at once.

    Args:
        app: the ASGI application.
        grace: seconds.
        end_answers: function that fails the running answers.
        on_ready: called when connections are accepted.
        max_connections: maximum number of connections; more get status 503.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace: float = 30.0,
        end_answers: Callable[[], None] | None = None,
        on_ready: Callable[[], None] | None = None,
        max_connections: int = 1000,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=max_connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(grace + 2 * _SLACK) + 1,
        )
        super().__init__(config)
        self._grace = grace
        self._end_answers = end_answers
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals within the context. (The base class raises them again afterwards, which ends the process.)"""
        previous = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        await super().startup(sockets)
        if self._on_ready is not None and self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, and wait until the running answers have ended."""
        ending = asyncio.create_task(self._end_after_grace())
        await super().shutdown(sockets)
        ending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ending

    async def _end_after_grace(self) -> None:
        await asyncio.sleep(self._grace)
        if self._end_answers is not None:
            self._end_answers()
