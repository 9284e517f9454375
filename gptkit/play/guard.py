"""Access control of a page that only the user of this machine may use, and the headers that protect it."""

from __future__ import annotations

import ipaddress
import logging

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptkit.serving.api_error import ApiError
from gptkit.serving.http import DisconnectedError, Exchange

__all__ = ["Guard"]

_log = logging.getLogger("gptkit.play")

_HEADERS = (
    # The policy of the page itself is in the page; a header is needed for what a page cannot say.
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """ASGI middleware that refuses requests of other sites' pages.

    A page of another site can resolve its own name to this machine (DNS rebinding): then the Host header has that name. It
    can also send requests to this machine's address: then Origin or Sec-Fetch-Site names the other site.

    Args:
        app: the application.
        hosts: names that the Host header may have besides addresses; None accepts addresses and localhost.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None = None) -> None:
        self._app = app
        self._hosts = hosts or frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def protected(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                names = {name for name, _ in _HEADERS}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in names]
                message["headers"] = [*kept, *_HEADERS]
            await send(message)

        exchange = Exchange(scope, receive, protected)
        try:
            self._admit(exchange.headers)
            await self._app(scope, receive, protected)
        except DisconnectedError:
            pass
        except Exception as error:
            status, content = _failure(error)
            if begun:
                raise
            await exchange.respond(content, status)

    def _admit(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_own(host):
            raise ApiError(403, "this name of the server is not accepted; use its address or localhost")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise ApiError(403, "requests of other sites are not accepted")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise ApiError(403, "requests of other sites are not accepted")

    def _is_own(self, host: str) -> bool:
        name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
        if name.lower() == "localhost" or name.lower() in self._hosts:
            return True
        try:
            # A page that was loaded from an address belongs to the program that listens there.
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _failure(error: Exception) -> tuple[int, dict[str, str | None]]:
    if isinstance(error, ApiError):
        return error.status, {"message": error.message, "hint": None}
    if isinstance(error, HTTPException):
        return error.status_code, {"message": error.detail, "hint": None}
    _log.error("a request failed", exc_info=error)
    return 500, {"message": "internal error; the terminal of gptkit play reports it", "hint": None}
