"""`EngineGeneration`: texts that an engine generates."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Engine
from gptkit.inference.generation import Event
from gptkit.inference.request import Request
from gptkit.inference.result import Generated, Timings

__all__ = ["EngineGeneration"]


class EngineGeneration:
    """Batch of prompts that an engine continues: a `gptkit.inference.generation.TextGeneration`.

    Args:
        engine: the engine, which has no other requests.
        requests: one request per prompt.

    Attributes:
        states: the states of the requests, in their order.

    Raises:
        GptkitError: the engine cannot compute a request; nothing has been started then.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        for index, request in enumerate(requests):
            try:
                engine.check(request)
            except GptkitError as error:
                where = f"prompt {index}: " if len(requests) > 1 else ""
                raise GptkitError(f"{where}{error.message}", hint=error.hint) from None
        self._engine = engine
        self._drafted = (engine.n_drafted, engine.n_accepted)
        self._begin = self._end = time.perf_counter()
        self._first: float | None = None
        self.states = [engine.submit(request) for request in requests]
        self._written = dict.fromkeys(self.states, 0)

    @property
    def done(self) -> bool:
        """Whether every text has ended."""
        return all(state.finish is not None for state in self.states)

    def advance(self) -> list[Event]:
        """Continue every running text; return the new pieces of text.

        Raises:
            GptkitError: the engine cannot continue a text. The others are cancelled.
        """
        if self.done:
            return []
        progress = self._engine.step()
        self._end = time.perf_counter()
        if self._first is None and any(state.n_generated for state in self.states):
            self._first = self._end
        error = next((each.error for each in progress if each.error is not None), None)
        if error is not None:
            self.interrupt()
            raise error
        return self._new_text()

    def interrupt(self) -> list[Event]:
        """End every unfinished text; return the text that was held back."""
        for state in self.states:
            if state.finish is None:
                self._engine.cancel(state)
        return self._new_text()

    def results(self) -> list[Generated]:
        """Return the texts in the order of the prompts. Unfinished ones have the finish reason "interrupted"."""
        timings = self.timings
        return [state.result(timings) for state in self.states]

    @property
    def timings(self) -> Timings:
        """Time until the first token of any text, and the time after it."""
        first = self._end if self._first is None else self._first
        n_prompt = [min(len(state.request.prompt_ids), self._engine.context_length) for state in self.states]
        return Timings(
            prompt_tokens=sum(n for n, state in zip(n_prompt, self.states, strict=True) if state.n_generated),
            prefill_seconds=first - self._begin,
            decoded_tokens=max(0, sum(state.n_generated for state in self.states) - 1),
            decode_seconds=self._end - first,
            drafted_tokens=self._engine.n_drafted - self._drafted[0],
            accepted_tokens=self._engine.n_accepted - self._drafted[1],
        )

    def _new_text(self) -> list[Event]:
        """Return the text since the last call. An interrupted step has changed states without reporting it."""
        events = []
        for index, state in enumerate(self.states):
            text = state.text.text[self._written[state] :]
            if text:
                self._written[state] += len(text)
                events.append((index, text))
        return events
