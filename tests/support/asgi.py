"""Requests to an ASGI application in this process, without a connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

__all__ = ["ask"]

_PART = 65536


async def ask(app: Any, body: Any, *, path: str = "/v1/completions", leave_after: int | None = None) -> int | None:
    """Send a request, and return the status of the answer; None without one.

    Args:
        app: the application.
        body: the body; JSON unless it is bytes.
        path: the path.
        leave_after: close the connection after this many messages of the answer; 0 for soon, before the answer.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = [data[first : first + _PART] for first in range(0, len(data), _PART)] or [b""]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]
    gone, statuses, n_sent = asyncio.Event(), list[int](), 0

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal n_sent
        n_sent += 1
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        if leave_after is not None and n_sent >= leave_after:
            gone.set()

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
    }
    if leave_after == 0:
        asyncio.get_running_loop().call_later(0.02, gone.set)
    await app(scope, receive, send)
    return statuses[0] if statuses else None
