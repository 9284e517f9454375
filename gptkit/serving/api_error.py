"""`ApiError`: an answer with an error object as the OpenAI API defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.core.errors import GptkitError, SpecError
from gptkit.serving.errors import BusyError, EngineError, SlowClientError, UnavailableError

__all__ = ["ApiError", "as_api_error"]

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """Answer with an error status.

    Args:
        status: HTTP status.
        message: what is wrong and what to do.
        param: the field of the body that is wrong, as ``stop`` or ``messages.0.content``.
        code: machine-readable code.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the error object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def as_api_error(error: GptkitError, param: str | None = None) -> ApiError:
    """Return the answer for an error that generation raised.

    Args:
        error: the error; one that has no status of its own is an invalid request.
        param: the field of the body that it concerns.
    """
    message = _sentence(error)
    if isinstance(error, BusyError):
        return ApiError(429, message, code="queue_full", headers={"retry-after": str(error.retry_after)})
    if isinstance(error, UnavailableError):
        return ApiError(503, message, code="unavailable", headers={"retry-after": "5"})
    if isinstance(error, EngineError):
        return ApiError(500, message, code="engine_error")
    if isinstance(error, SlowClientError):
        return ApiError(408, message, code="slow_client", headers={"x-should-retry": "false"})
    if isinstance(error, SpecError) and error.problems:
        first = error.problems[0]
        return ApiError(400, first.message, param=first.dotted or param, code="invalid_value")
    return ApiError(400, message, param=param, code="invalid_value")


def _sentence(error: GptkitError) -> str:
    return f"{error.message}. {error.hint}" if error.hint else error.message
