"""`Exchange`: one HTTP request and its answer, on the interface of ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from gptkit.serving.api_error import ApiError
from gptkit.serving.limits import Limits

__all__ = ["DisconnectedError", "Exchange"]

_Value = TypeVar("_Value")

_CLOSE = {"connection": "close"}
"""The rest of a body is not read, so the connection cannot be used again."""


_DISCARDED = 4
"""A body of up to this multiple of the largest size is discarded, since most clients read no answer while they send."""


class DisconnectedError(Exception):
    """The client has closed the connection."""


class Exchange:
    """One request and its answer.

    Attributes:
        headers: the headers of the request.
        notes: what the access log reports about the request, besides its status.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.notes: dict[str, Any] = scope.setdefault("gptkit.notes", {})
        self._receive = receive
        self._send = send

    async def body(self, limits: Limits) -> bytes:
        """Return the body, which must be JSON.

        Raises:
            ApiError: it has another type, is too large, or does not arrive in time.
            DisconnectedError: the client has closed the connection.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise ApiError(415, "the body must be JSON; add the header Content-Type: application/json", headers=_CLOSE)
        announced = self.headers.get("content-length", "")
        patience = _DISCARDED * limits.max_body
        if announced.isdecimal() and int(announced) > patience:
            raise _too_large(limits)
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(limits.body_timeout):
                while more:
                    received = await self._receive()
                    if received["type"] == "http.disconnect":
                        raise DisconnectedError
                    part = received.get("body", b"")
                    size += len(part)
                    if size > patience:
                        raise _too_large(limits)
                    if size <= limits.max_body:
                        parts.append(part)
                    else:
                        parts.clear()
                    more = received.get("more_body", False)
        except TimeoutError:
            seconds = f"{limits.body_timeout:g} seconds"
            raise ApiError(408, f"the body did not arrive within {seconds}", code="body_timeout", headers=_CLOSE) from None
        if size > limits.max_body:
            raise _too_large(limits)
        return b"".join(parts)

    async def while_connected(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        """Return the result of a coroutine, which is cancelled as soon as the client closes the connection.

        Raises:
            DisconnectedError: the client has closed the connection.
        """
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._disconnect())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise DisconnectedError
            return task.result()
        finally:
            watch.cancel()
            task.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)
            # An exception of the task refers to this frame: a cycle would keep the request until a garbage collection.
            del task, watch

    async def _disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(
        self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        """Send an answer: data as JSON, or bytes of another type."""
        data = content if isinstance(content, bytes) else encoded(content)
        await self._begin(status, {"content-type": kind, "content-length": str(len(data)), **(headers or {})})
        await self._send({"type": "http.response.body", "body": data})

    async def begin_events(self) -> None:
        """Begin an answer of server-sent events."""
        direct = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # proxies must not collect the events
        await self._begin(200, {"content-type": "text/event-stream; charset=utf-8", **direct})

    async def event(self, content: Any) -> None:
        """Send one event: data as JSON, or a text as it is."""
        data = content.encode() if isinstance(content, str) else encoded(content)
        await self._send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})

    async def end_events(self) -> None:
        """End an answer of server-sent events."""
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        message: Message = {"type": "http.response.start", "status": status, "headers": raw}
        await self._send(message)


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the body is larger than {limits.max_body:,} bytes", code="body_too_large", headers=_CLOSE)


def encoded(content: Any) -> bytes:
    """Return data as JSON."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
