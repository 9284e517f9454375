"""A thread that makes calls in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

__all__ = ["Worker"]


class Worker:
    """Thread that makes calls in order; after a call that raises, no further one is made.

    A server that does not answer would otherwise stop the training for as long as the client repeats its requests.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        # A daemon, so that it does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="gptkit-mlflow", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether a call raised an exception."""
        return self._error is not None

    def submit(self, call: Callable[[], None]) -> None:
        """Make a call after those submitted before; raise the exception of an earlier one."""
        if self._error is not None:
            raise self._error
        self._calls.put(call)

    def close(self, timeout: float) -> None:
        """Wait for all calls, and raise the exception of one.

        Raises:
            TimeoutError: calls are left after `timeout` seconds.
        """
        self._calls.put(None)
        self._thread.join(timeout)
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            raise TimeoutError(f"not everything was recorded within {timeout:g} s of the end of the training")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:
                self._error = error
                return
