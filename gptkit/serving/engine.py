"""`AsyncEngine`: an engine for asyncio programs, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Engine, Progress, Score
from gptkit.inference.request import Request, RequestState
from gptkit.serving.errors import BusyError, EngineError, UnavailableError
from gptkit.serving.events import Event, Listener, Silent
from gptkit.serving.generation import Generation, Mail, Part

__all__ = ["AsyncEngine"]

_log = logging.getLogger("gptkit.serving")

_Value = TypeVar("_Value")


class AsyncEngine:
    """Engine whose requests come from one or more event loops; a thread of its own drives it.

    ::

        engine = AsyncEngine(NativeSpec().build(context))
        async with engine.generate(request) as events:
            async for event in events:
                ...
        await engine.close()

    The thread steps the engine while requests run, and sleeps otherwise. Results of a step reach each event loop by one
    call. An exception of the engine ends its requests with `EngineError`, and the engine is reset and continues.

    Args:
        engine: the engine; from here on it belongs to the thread.
        max_queue: maximum number of requests that wait for a place in the batch; more are refused.
        max_buffered: maximum number of events that a reader has not read; with more, its requests are cancelled.
        listener: receives measurements.
        name: name of the thread.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_queue: int = 64,
        max_buffered: int = 4096,
        listener: Listener | None = None,
        name: str = "engine",
    ) -> None:
        self._engine = engine
        self._max_queue = max_queue
        self._max_buffered = max_buffered
        self._listener = listener or Silent()
        self._condition = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._broken: str | None = None
        self._n_open = 0
        self._n_running = 0
        self._mean_seconds = 1.0
        self._live: dict[RequestState, Part] = {}
        self._helpers = ThreadPoolExecutor(2, thread_name_prefix=f"{name}-helper")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def tokenizer(self) -> Any:
        """The engine's tokenizer."""
        return self._engine.tokenizer

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a text, including its prompt."""
        return self._engine.context_length

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._engine.vocab_size

    @property
    def capacity(self) -> int:
        """Maximum number of requests that run or wait."""
        return self._engine.max_batch + self._max_queue

    @property
    def n_running(self) -> int:
        """Number of requests that are computed."""
        return self._n_running

    @property
    def n_waiting(self) -> int:
        """Number of requests that wait for a place in the batch."""
        return max(0, self._n_open - self._n_running)

    @property
    def problem(self) -> str | None:
        """Why no request can be computed; None if the engine works."""
        if self._broken is None and not self._thread.is_alive():
            return "the engine is closed"
        return self._broken

    async def check(self, request: Request) -> None:
        """Check that the engine can compute a request, as `Engine.check` does, without blocking the event loop."""
        await self.call(self._engine.check, request)

    async def call(self, function: Callable[..., _Value], *arguments: Any) -> _Value:
        """Run a function that would block the event loop, such as tokenization, in a helper thread."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, function, *arguments)

    def generate(self, *requests: Request) -> Generation:
        """Return the generation of the requests; it starts when its context is entered (``async with``).

        Raises:
            BusyError: too many requests run or wait already.
            UnavailableError: the engine is closed or does not work.
        """
        return Generation(requests, self._max_buffered, self._start, lambda ended: self._post(lambda: self._drop(ended)))

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        """Score each token of a text given the preceding ones (`Engine.score`), between two steps."""
        if (problem := self.problem) is not None:
            raise UnavailableError(problem)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Score]] = loop.create_future()

        def job() -> None:
            outcome: list[Score] | GptkitError
            if future.cancelled():
                return
            try:
                outcome = self._engine.score(ids, top)
            except GptkitError as error:
                outcome = error
            except Exception as error:
                outcome = self._report(error)
            _call(loop, lambda: _settle(future, outcome))

        self._post(job)
        return await future

    def fail_all(self, error: GptkitError) -> None:
        """End all requests with an error."""
        self._post(lambda: self._fail_all(error))

    async def close(self) -> None:
        """End all requests, and the thread; the engine cannot be used afterwards."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        await asyncio.to_thread(self._thread.join)
        self._helpers.shutdown(wait=False, cancel_futures=True)

    def _start(self, generation: Generation) -> None:
        if (problem := self.problem) is not None:
            raise UnavailableError(problem)
        with self._condition:
            if self._n_open + len(generation.requests) > self.capacity:
                raise BusyError(f"{self._n_open} requests run or wait already", retry_after=self._retry_after())
            self._n_open += len(generation.requests)
        generation.begin()
        self._post(lambda: self._submit(generation))

    def _retry_after(self) -> int:
        rounds = self._n_open / self._engine.max_batch
        return min(60, max(1, math.ceil(rounds * self._mean_seconds)))

    def _post(self, job: Callable[[], None]) -> None:
        with self._condition:
            self._jobs.append(job)
            self._condition.notify()

    # -- all below runs on the engine's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._jobs or self._stopping or self._has_work())
                jobs, self._jobs = self._jobs, deque()
                stopping = self._stopping
            try:
                for job in jobs:
                    job()
                if stopping:
                    break
                if self._has_work():
                    self._deliver(self._engine.step())
                else:
                    self._n_running = 0
            except Exception as error:
                self._recover(error)
        self._fail_all(UnavailableError("the server is shutting down"))
        self._n_running = 0
        self._engine.close()

    def _has_work(self) -> bool:
        return self._broken is None and not self._engine.idle

    def _submit(self, generation: Generation) -> None:
        for part in list(generation.parts):
            if not part.open or generation.closed or self._broken is not None:
                self._end(part, "cancelled")
                continue
            try:
                part.state = self._engine.submit(part.request)
            except GptkitError as error:
                self._fail(generation, error)
            except Exception as error:
                self._fail(generation, self._report(error))
            else:
                self._live[part.state] = part
                generation.states[part.index] = part.state
        if self._broken is not None:
            self._fail(generation, UnavailableError(self._broken))

    def _drop(self, generation: Generation) -> None:
        for part in list(generation.parts):
            self._end(part, "cancelled")

    def _fail(self, generation: Generation, error: GptkitError) -> None:
        for part in list(generation.parts):
            self._end(part, "failed")
        self._send({generation: []}, {generation: error})

    def _fail_all(self, error: GptkitError) -> None:
        for generation in {part.generation for part in self._live.values()}:
            self._fail(generation, error)

    def _end(self, part: Part, reason: str) -> None:
        """Free the place of a request that has not ended."""
        if not part.open:
            return
        part.open = False
        if part.state is not None and self._live.pop(part.state, None) is not None:
            self._engine.cancel(part.state)
        self._count(part, reason)

    def _count(self, part: Part, reason: str) -> None:
        part.generation.parts.remove(part)  # else they would refer to each other, and wait for a garbage collection
        seconds = time.monotonic() - part.submitted
        with self._condition:
            self._n_open -= 1
            self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
        n_cached = 0 if part.state is None else part.state.n_cached
        self._listener.ended(part.request, part.n_generated, reason, seconds, n_cached)

    def _recover(self, error: Exception) -> None:
        failure = self._report(error)
        live, self._live = self._live, {}
        for part in live.values():
            part.open = False
            self._count(part, "failed")
        self._send({}, dict.fromkeys({part.generation for part in live.values()}, failure))
        self._n_running = 0
        try:
            self._engine.reset()
        except Exception:
            _log.exception("the engine could not be reset, and accepts no more requests")
            self._broken = "the engine failed and could not be reset; restart the server"

    def _deliver(self, progress: Sequence[Progress]) -> None:
        events: dict[Generation, list[Event]] = {}
        failed: dict[Generation, GptkitError] = {}
        now = time.monotonic()
        for each in progress:
            part = self._live.get(each.state)
            if part is not None:
                self._measure(part, each, now)
                if each.error is not None:
                    failed[part.generation] = each.error
                else:
                    event = Event(part.index, each.ids, each.scores, each.text, each.finish, each.state.n_cached)
                    events.setdefault(part.generation, []).append(event)
        for generation in failed:
            for part in list(generation.parts):
                self._end(part, "failed")
        self._n_running = self._engine.n_running  # before readers receive the events
        self._send(events, failed)

    def _measure(self, part: Part, progress: Progress, now: float) -> None:
        count = len(progress.ids)
        if count and part.n_generated == 0:
            self._listener.first_tokens(now - part.submitted, count)
        elif count:
            self._listener.next_tokens(now - part.last, count)
        part.last = now
        part.n_generated += count
        if progress.finish is not None:
            part.open = False
            del self._live[progress.state]
            self._count(part, progress.finish)

    def _report(self, error: Exception) -> EngineError:
        _log.error("the engine raised an exception, which ended %d requests", len(self._live), exc_info=error)
        return EngineError("the engine raised an exception, which the server's log reports")

    def _send(self, events: dict[Generation, list[Event]], errors: dict[Generation, GptkitError]) -> None:
        mail: dict[asyncio.AbstractEventLoop, Mail] = {}
        for generation, new in events.items():
            mail.setdefault(generation.loop, Mail()).events[generation] = new
        for generation, error in errors.items():
            mail.setdefault(generation.loop, Mail()).errors[generation] = error
        for loop, each in mail.items():
            if not _call(loop, each.deliver):
                for generation in {*each.events, *each.errors}:
                    self._drop(generation)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> bool:
    """Call a function in an event loop; return whether the loop still runs."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop is closed, and with it the program that waited for the result
        return False
    return True


def _settle(future: asyncio.Future[list[Score]], outcome: list[Score] | GptkitError) -> None:
    if future.cancelled():
        return
    if isinstance(outcome, GptkitError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
