"""`Generation`: the events of requests that run in an engine's thread, as an asynchronous iterator."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from gptkit.core.errors import GptkitError
from gptkit.inference.request import Request, RequestState
from gptkit.serving.errors import SlowClientError
from gptkit.serving.events import Event

__all__ = ["Generation", "Part"]


@dataclass(eq=False)
class Part:
    """One request of a generation, as the engine's thread sees it."""

    generation: Generation
    index: int
    request: Request
    submitted: float
    state: RequestState | None = None
    last: float = 0.0
    n_generated: int = 0
    open: bool = True


class Generation(AsyncIterator[Event]):
    """Asynchronous iterator over the events of one or more requests, in the order in which they occur.

    ::

        async with engine.generate(request) as events:
            async for event in events:
                print(event.text, end="")

    Entering the context starts the requests. Leaving it cancels those that still run, and frees their places in the batch
    at once. A request that ends without a result raises its error in the iteration.

    Args:
        requests: the requests.
        max_buffered: maximum number of events that are not read yet.
        start, cancel: called on entering the context, and where requests still run at its end.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        max_buffered: int,
        start: Callable[[Generation], None],
        cancel: Callable[[Generation], None],
    ) -> None:
        self.requests = requests
        self.parts: list[Part] = []
        """Those of its requests that have begun and have not ended; for the engine's thread."""
        self.states: dict[int, RequestState] = {}
        """What the engine has computed of its requests so far, by index."""
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self._start = start
        self._cancel = cancel
        self._max_buffered = max_buffered
        self._events: deque[Event] = deque()
        self._error: GptkitError | None = None
        self._n_open = len(requests)
        self._wake = asyncio.Event()

    def begin(self) -> None:
        """Make the parts; called by the engine when it accepts the requests."""
        now = time.monotonic()
        self.parts = [Part(self, index, request, now) for index, request in enumerate(self.requests)]

    async def __aenter__(self) -> Generation:
        self._start(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._error is not None:
                # Raised once, and without a name: the traceback refers to this frame, and so to the generation.
                raise self._taken_error()
            if self._n_open == 0 or self.closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    def _taken_error(self) -> GptkitError:
        error, self._error = self._error, None
        assert error is not None
        return error

    def close(self) -> None:
        """Cancel the requests that still run. The iteration ends after the events that have arrived."""
        if not self.closed:
            self.closed = True
            self._wake.set()
            if self._n_open:
                self._cancel(self)

    def feed(self, events: Sequence[Event]) -> None:
        """Add events; called by the engine through the event loop."""
        if self.closed:
            return
        self._n_open -= sum(event.finish is not None for event in events)
        self._events.extend(events)
        self._wake.set()
        if len(self._events) > self._max_buffered and self._n_open:
            # The reader is slow, and memory is bounded: what it has not read is discarded.
            self._events.clear()
            self.fail(SlowClientError(f"{self._max_buffered:,} results were not read, so the request was cancelled"))

    def fail(self, error: GptkitError) -> None:
        """End the iteration with an error, after the events that have arrived."""
        if not self.closed and self._error is None:
            self._error = error
            self.close()


@dataclass
class Mail:
    """Events of one step for the generations of one event loop."""

    events: dict[Generation, list[Event]] = field(default_factory=dict)
    errors: dict[Generation, GptkitError] = field(default_factory=dict)

    def deliver(self) -> None:
        """Deliver the events; runs in the event loop."""
        for generation, events in self.events.items():
            generation.feed(events)
        for generation, error in self.errors.items():
            generation.fail(error)
