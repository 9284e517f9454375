"""Errors of serving."""

from __future__ import annotations

from gptkit.core.errors import GptkitError

__all__ = ["BusyError", "EngineError", "SlowClientError", "UnavailableError"]


class BusyError(GptkitError):
    """The queue is full.

    Args:
        message, hint: as for `GptkitError`.
        retry_after: seconds after which there is probably room.
    """

    def __init__(self, message: str, *, retry_after: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class UnavailableError(GptkitError):
    """The engine is closed, or could not be made usable after an exception."""


class EngineError(GptkitError):
    """The engine raised an exception, which ended all its requests."""


class SlowClientError(GptkitError):
    """The results of a generation were not read for so long that it was cancelled."""
