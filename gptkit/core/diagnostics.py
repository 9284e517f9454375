"""The stream of messages: stderr, without failures."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO

__all__ = ["Diagnostics"]


class Diagnostics:
    """Standard error as a stream whose writes never raise.

    The terminal of a long training is closed, the program that reads its messages ends, or the disk of its log file is full:
    the messages are lost, the work must not be. After a write that failed, the file descriptor refers to the null device.

    Args:
        stream: the stream; by default `sys.stderr` at the time of each write. Without one (None), messages are discarded.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return its length, also if it could not be written."""
        target = self._target
        try:
            if target is not None:
                target.write(text)
        except OSError:
            _discard(target)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        target = self._target
        try:
            if target is not None:
                target.flush()
        except OSError:
            _discard(target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    @property
    def _target(self) -> Any:
        return sys.stderr if self._stream is None else self._stream


def _discard(stream: Any) -> None:
    """Connect a stream with the null device, which also receives what it holds in its buffer."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)
        stream.flush()
