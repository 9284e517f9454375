"""Middleware in front of all routes: access control, error objects, access log and response metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import secrets
import sys
import time
from collections.abc import Collection
from typing import Any

from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptkit.serving.api_error import ApiError
from gptkit.serving.http import DisconnectedError, Exchange

__all__ = ["Gate"]

_log = logging.getLogger("gptkit.serving")

_OPEN = frozenset({"/health"})
"""Routes that need no key."""

_PATIENCE = 2.0
"""Seconds in which the last event of a failed stream must be sent."""


class Gate:
    """ASGI middleware.

    Args:
        app: the application.
        routes: the known routes; others have one label in the metrics.
        responses: counter of responses by route and status.
        key: the key that clients must send as ``Authorization: Bearer KEY``; None admits everyone.
        hosts: names that the Host header may have, so that pages of other sites cannot reach a server without a key by
            resolving their own name to this machine; None admits all.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Collection[str],
        responses: Counter,
        key: str | None = None,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._app = app
        self._routes = frozenset(routes)
        self._responses = responses
        self._key = None if key is None else f"Bearer {key}".encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0
        request_id = secrets.token_hex(8)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        exchange = Exchange(scope, receive, watched)
        try:
            self._admit(exchange)
            await self._app(scope, receive, watched)
        except DisconnectedError:
            status = 499
        except Exception as error:
            # The failure has no name here: its traceback refers to this frame, and a cycle would keep the request's body.
            await _answer(exchange, _as_failure(error, request_id), begun=status != 0)
        finally:
            self._record(scope, exchange.notes, status, request_id, time.perf_counter() - begin)

    def _admit(self, exchange: Exchange) -> None:
        if self._hosts is not None and _name(exchange.headers.get("host", "")) not in self._hosts:
            message = (
                "this name of the server is not accepted; use 127.0.0.1 or localhost, or start the server with an API key"
            )
            raise ApiError(403, message, code="host_not_accepted")
        if self._key is None or exchange.scope["path"] in _OPEN:
            return
        given = exchange.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._key):
            message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})

    def _record(self, scope: Scope, notes: dict[str, Any], status: int, request_id: str, seconds: float) -> None:
        path = scope["path"]
        route = path if path in self._routes else "/v1/models/{name}" if path.startswith("/v1/models/") else "other"
        self._responses.labels(route, str(status)).inc()
        client = scope.get("client")
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": request_id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": path[:200],
            "status": status,
            "seconds": round(seconds, 4),
            **notes,
        }
        print(json.dumps(entry), file=sys.stderr, flush=True)  # noqa: T201 the access log


async def _answer(exchange: Exchange, failure: ApiError, *, begun: bool) -> None:
    """Send an error, as the answer or as the last event of a stream that has begun with status 200."""
    exchange.notes["error"] = failure.code or failure.message[:200]
    if not begun:
        await exchange.respond(failure.body(), failure.status, failure.headers)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await exchange.event(failure.body())
            await exchange.end_events()


def _as_failure(error: Exception, request_id: str) -> ApiError:
    if isinstance(error, ApiError):
        if error.status >= 500 and error.__cause__ is not None:
            _log.error("request %s: %s", request_id, error.message)
        return error
    if isinstance(error, HTTPException):
        messages = {404: "this path does not exist; the API is at /v1", 405: "this path has another method"}
        return ApiError(error.status_code, messages.get(error.status_code, error.detail), headers=error.headers)
    _log.error("request %s: internal error", request_id, exc_info=error)
    return ApiError(500, f"internal error; the server's log reports it as request {request_id}", code="internal_error")


def _name(host: str) -> str:
    """Return the host name of a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0][1:].lower()
    return host.partition(":")[0].lower()
