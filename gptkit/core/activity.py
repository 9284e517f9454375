"""Progress messages of long operations on stderr: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DELAY", "Report", "working"]

DELAY = 2.0
"""Seconds after which an operation is shown; shorter ones print nothing."""

_INTERVAL = 30.0
"""Seconds between two plain lines of one operation."""

Report = Callable[..., None]
"""Progress callback: receives the completed and the total amount of work (0 if unknown), and optionally a detail."""

_shown: list[_Activity] = []


@contextlib.contextmanager
def working(what: str, *, quiet: bool = False, console: Console | None = None) -> Iterator[Report]:
    """Show that an operation is under way, from `DELAY` seconds after it began until it ends.

    Inside of another operation that is shown, nothing is added.

    Args:
        what: the operation, as in ``"loading runs/gpt"``.
        quiet: show nothing.
        console: where to show it; stderr by default.

    Yields:
        The function that receives the progress; calling it is optional.
    """
    if quiet or _shown:
        yield lambda done, total, detail="": None
        return
    activity = _Activity(what, console)
    _shown.append(activity)
    timer = threading.Timer(DELAY, activity.show)
    timer.daemon = True
    timer.start()
    try:
        yield activity.report
    finally:
        timer.cancel()
        activity.end()
        _shown.remove(activity)


class _Activity:
    def __init__(self, what: str, console: Console | None) -> None:
        self._what, self._console = what, console
        self._progress = ""
        self._status: Any = None
        self._ended = False
        self._next_line = 0.0
        self._lock = threading.Lock()

    def report(self, done: int, total: int, detail: str = "") -> None:
        with self._lock:
            self._progress = (f" {100 * done // total} %" if total else "") + (f" {detail}" if detail else "")
            if self._status is not None:
                self._status.update(self._line())
            elif self._next_line and time.monotonic() >= self._next_line:
                self._print()

    def show(self) -> None:
        # Another thread than that of the operation.
        with self._lock:
            if self._ended:
                return
            if self._console is None:
                from rich.console import Console

                self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
            if self._console.is_terminal:
                self._status = self._console.status(self._line())
                self._status.start()
            else:
                self._print()

    def end(self) -> None:
        with self._lock:
            self._ended = True
            if self._status is not None:
                self._status.stop()

    def _line(self) -> Any:
        from rich.text import Text

        return Text(f"{self._what} …{self._progress}")

    def _print(self) -> None:
        assert self._console is not None
        self._console.print(self._line(), soft_wrap=True)
        self._next_line = time.monotonic() + _INTERVAL
