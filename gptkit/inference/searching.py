"""Generation with a decoding that searches: the counterpart of `Generation` for one prompt after another."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from gptkit.core.errors import GptkitError
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.request import Request, RequestState
from gptkit.inference.result import Alternative, Finish, Generated, Timings
from gptkit.inference.search import PromptSearch
from gptkit.kinds.decoding import Continuation, DecodingSpec
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["SearchGeneration"]

Event = tuple[int, str]
"""An index of a prompt and its text."""


class SearchGeneration:
    """Prompts that are continued one after another, one step of the search per `advance`; each text is final at its end.

    Args:
        model: the model.
        tokenizer: the tokenizer that the model was trained with.
        requests: the prompts, with their limits.
        decoding: the decoding.

    Raises:
        GptkitError: as `PromptSearch`, with the index of the prompt; a request records log-probabilities or a trace.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, requests: Sequence[Request], decoding: DecodingSpec
    ) -> None:
        self.seed = requests[0].seed if requests else secrets.randbits(32)
        self._tokenizer, self._decoding, self._model = tokenizer, decoding, model
        for index, request in enumerate(requests):
            if request.log_probabilities is not None or request.trace:
                what = "a trace" if request.trace else "log-probabilities"
                raise GptkitError(
                    f"{what} of decoding {decoding.name!r} cannot be recorded",
                    hint="Use the decoding sample, or gptkit.inference.score for the log-probabilities of a text.",
                )
            _check(model, request, index)
        self._requests = list(requests)
        self._continuations: list[list[Continuation] | None] = [None] * len(requests)
        self._finish: list[Finish | None] = [None] * len(requests)
        self._search: PromptSearch | None = None
        self._current = 0
        self._prefill_seconds = self._decode_seconds = 0.0

    @property
    def done(self) -> bool:
        """Whether every text has ended."""
        return self._current >= len(self._requests)

    def advance(self) -> list[Event]:
        """Continue the search of the current prompt by one token; return its text if the search has ended.

        Raises:
            GptkitError: the next token of a text cannot be chosen.
        """
        if self.done:
            return []
        begin = time.perf_counter()
        first = self._search is None
        if self._search is None:
            self._search = PromptSearch(self._model, self._tokenizer, self._requests[self._current], self._decoding)
        if not self._search.done:
            self._search.advance()
        if first:
            self._prefill_seconds += time.perf_counter() - begin
        else:
            self._decode_seconds += time.perf_counter() - begin
        return self._end(None) if self._search.done else []

    def interrupt(self) -> list[Event]:
        """End every unfinished text; return the best text of the current search."""
        events = self._end("interrupted") if self._search is not None and not self.done else []
        self._current = len(self._requests)
        self._search = None
        return events

    def results(self) -> list[Generated]:
        """Return the best texts in the order of the prompts. Unfinished ones have the finish reason "interrupted"."""
        n_tokens = [len(continuations[0].ids) if continuations else 0 for continuations in self._continuations]
        started = [
            request for request, continuations in zip(self._requests, self._continuations, strict=True) if continuations
        ]
        timings = Timings(
            prompt_tokens=sum(min(len(request.prompt_ids), self._model.context_length) for request in started),
            prefill_seconds=self._prefill_seconds,
            decoded_tokens=sum(max(0, n - 1) for n in n_tokens),
            decode_seconds=self._decode_seconds,
        )
        return [self._generated(index, timings) for index in range(len(self._requests))]

    def _end(self, reason: Finish | None) -> list[Event]:
        assert self._search is not None
        self._continuations[self._current], self._finish[self._current] = self._search.results(), reason
        text = self._state(self._current, 0).text.text
        event = (self._current, text)
        self._search, self._current = None, self._current + 1
        return [event] if text else []

    def _generated(self, index: int, timings: Timings) -> Generated:
        result = self._state(index, 0).result(timings)
        continuations = self._continuations[index] or []
        texts = [self._state(index, place) for place in range(len(continuations))]
        alternatives = [
            Alternative(each.ids, state.text.text, state.finish or "interrupted", each.score)
            for each, state in zip(continuations, texts, strict=True)
        ]
        return result.with_alternatives(alternatives)

    def _state(self, index: int, place: int) -> RequestState:
        """Return the state of a request after a continuation of its search."""
        request, continuations = self._requests[index], self._continuations[index]
        state = RequestState(request, self._tokenizer)
        if continuations is None:
            return state
        for token in continuations[place].ids:
            state.append(token)
        if state.finish is None or (continuations[place].ended and state.finish == "length"):
            own_end = self._tokenizer.end_id in request.stop_ids
            ended: Finish = "end" if own_end else "stop"
            state.end(ended if continuations[place].ended else self._finish[index] or "length")
        return state


def _check(model: LanguageModel, request: Request, index: int) -> None:
    limit, n_prompt = model.context_length, len(request.prompt_ids)
    if request.overflow == "stop" and n_prompt > limit:
        raise GptkitError(
            f"prompt {index}: the prompt has {n_prompt} tokens, the model's context {limit}",
            hint='Shorten it, or choose overflow="slide", which uses its last part.',
        )
