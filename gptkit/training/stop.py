"""Ctrl-C, SIGTERM and a closed terminal: the first signal finishes the step and saves, the second one stops immediately."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopRequest"]

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopRequest:
    """A context in which SIGINT, SIGTERM and SIGHUP request a stop; true once one was received.

    SIGHUP, which a process receives when its terminal or connection is closed, stays ignored if it is (by `nohup`). Outside
    the main thread, where signals cannot be caught, it stays false.

    Args:
        several: several processes were launched, each of which receives one Ctrl-C from the terminal and from the
            launcher: signals within a second count as one. After an error, SIGTERM remains ignored.
    """

    def __init__(self, *, several: bool = False) -> None:
        self._requested = False
        self._several = several
        self._requested_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self._requested

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS if not _is_ignored(number)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            if self._several and isinstance(error, Exception) and number == signal.SIGTERM:
                # The launcher sends it to the others when one process has ended, and this one must still report the error.
                signal.signal(number, signal.SIG_IGN)
                continue
            # None: a handler that was not installed from Python cannot be put back from Python.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == getattr(signal, "SIGHUP", None) and self._requested:
            return  # the shell and the terminal may send one each
        if self._requested and not (self._several and now - self._requested_at < 1):
            raise KeyboardInterrupt
        if not self._requested:
            self._requested_at = now
        self._requested = True


def _is_ignored(number: signal.Signals) -> bool:
    """Return whether the process was started with `nohup`."""
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN
