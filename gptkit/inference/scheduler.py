"""Continuous batching: requests are admitted and evicted while others run.

Shapes: B batch (texts in the cache), V vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.inference.arrival import Arrival
from gptkit.inference.batch import Batch
from gptkit.inference.chain import Chain, sampling_error
from gptkit.inference.compiled.decoding import decoding_model
from gptkit.inference.modes import evaluating
from gptkit.inference.prefixes import PrefixCache
from gptkit.inference.protocol import LanguageModel
from gptkit.inference.request import Request, RequestState, TokenScore
from gptkit.inference.result import Finish
from gptkit.inference.second import SecondReading
from gptkit.inference.trace import RowTracer
from gptkit.kinds.sampler import SamplerContext
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Event", "Group", "Scheduler"]

Event = tuple[RequestState, str]
"""A request and a piece of its text that later tokens cannot change."""


class Group:
    """Requests that were admitted together with the same sampler chain: consecutive rows of the batch."""

    def __init__(self, states: list[RequestState], chain: Chain) -> None:
        self.states = states
        self.chain = chain

    def keep(self, rows: Sequence[int]) -> None:
        self.states = [self.states[row] for row in rows]
        self.chain.reorder(rows)


class Scheduler:
    """Scheduler of any number of requests, which generates one token of every running request per `step`.

    Waiting requests are admitted in the order of submission as soon as the batch has room: their prompts are processed
    (prefill) with a separate cache, which is then appended to that of the running ones. Each step processes a part of the
    prompts, so that a long one does not stop the running requests; arrivals take turns. Finished and cancelled requests are
    removed from the batch. The text of a request does not depend on the other requests (up to rounding, which the batch
    size can change). A request whose next token cannot be sampled ends with `RequestState.error`; the others continue.

    Args:
        model: a `gptkit.model.gpt.GPT`, or another `LanguageModel`.
        tokenizer: the tokenizer that the model was trained with.
        max_batch: maximum number of requests that run at the same time.
        prefill_chunk: maximum number of tokens of each prompt per forward pass, which bounds its memory; None for all.
        prefill_chunk_busy: maximum number of prompt tokens per step while other requests are decoded, which bounds the time
            of the step; at least one of each prompt in turn. None for all.
        prefix_bytes: maximum memory for the caches of recent prompts. A prompt that begins with the same tokens as one of
            them continues its cache, where the states of all layers can return to that length; 0 keeps none.
        compile: decode with a compiled step where one is ready, as in `generate`.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 32,
        prefill_chunk: int | None = 512,
        prefill_chunk_busy: int | None = 128,
        prefix_bytes: int = 0,
        compile: bool = False,
    ) -> None:
        if max_batch < 1:
            raise GptkitError(f"max_batch is {max_batch}", hint="Use 1 or more.")
        for name, chunk in (("prefill_chunk", prefill_chunk), ("prefill_chunk_busy", prefill_chunk_busy)):
            if chunk is not None and chunk < 1:
                raise GptkitError(f"{name} is {chunk}", hint="Use 1 or more, or None.")
        self._model = decoding_model(model, compile=compile)
        self._tokenizer = tokenizer
        self._max_batch = max_batch
        self._prefill_chunk = prefill_chunk
        self._prefill_chunk_busy = prefill_chunk_busy
        # A vocabulary is often padded to a round size; ids outside the tokenizer's vocabulary are never generated.
        self._vocab_size = min(model.vocab_size, tokenizer.vocab_size)
        self._keep_hidden = False
        self._prefixes = PrefixCache(prefix_bytes)
        self._waiting: deque[RequestState] = deque()
        self._arrivals: deque[Arrival] = deque()
        self._groups: list[Group] = []
        self._batch: Batch | None = None
        self._chosen_B: Tensor | None = None
        self.prefill_seconds = 0.0
        """Time for prefill and the first token of each request."""
        self.decode_seconds = 0.0
        """Time for the tokens after the first."""
        self.n_drafted = 0
        """Number of tokens that a drafter proposed and the model verified."""
        self.n_accepted = 0
        """Number of these that became a part of a text."""

    @property
    def running(self) -> list[RequestState]:
        """The requests in the batch, in the order of its rows, including finished ones that are not evicted yet."""
        return [state for group in self._groups for state in group.states]

    @property
    def prefilling(self) -> list[RequestState]:
        """The admitted requests whose prompts are not processed as a whole yet, or cancelled since the latest step."""
        return [state for arrival in self._arrivals for state in arrival.states]

    @property
    def waiting(self) -> list[RequestState]:
        """The requests that are not admitted yet, in the order of admission."""
        return list(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether every submitted request has ended."""
        return not self._waiting and all(state.finish is not None for state in (*self.running, *self.prefilling))

    def submit(self, request: Request) -> RequestState:
        """Queue a request.

        Raises:
            GptkitError: the prompt is longer than the context, with overflow "stop".
        """
        limit = self._model.context_length
        if request.overflow == "stop" and len(request.prompt_ids) > limit:
            raise GptkitError(
                f"the prompt has {len(request.prompt_ids)} tokens, the model's context {limit}",
                hint='Shorten it, or choose overflow="slide", which uses its last part.',
            )
        state = RequestState(request, self._tokenizer)
        if request.max_new_tokens == 0:
            state.end("length")
        else:
            self._waiting.append(state)
        return state

    def cancel(self, state: RequestState, reason: Finish = "interrupted") -> str:
        """End a request; return the text that was held back. The next step frees its row, or its part of a prefill."""
        if state.finish is not None:
            return ""
        if state in self._waiting:
            self._waiting.remove(state)
        return state.end(reason)

    def step(self) -> list[Event]:
        """Evict finished requests, decode one token of every running one, admit waiting ones, and process prompts."""
        events: list[Event] = []
        with torch.inference_mode(), evaluating(self._model):
            begin = time.perf_counter()
            events += self._evict()
            if self._batch is not None:
                events += self._decode(self._batch)
            decoded = time.perf_counter()
            self._admit()
            events += self._prefill()
        self.decode_seconds += decoded - begin
        self.prefill_seconds += time.perf_counter() - decoded
        return events

    def _decode(self, batch: Batch) -> list[Event]:
        """Process the tokens chosen last, and sample the next ones."""
        assert self._chosen_B is not None
        self._chosen_B, events = self._choose(self._groups, batch.step(self._chosen_B))
        return events

    def _evict(self) -> list[Event]:
        """Before the sampled tokens are processed: end texts that may not slide, and remove rows that have ended."""
        self._arrivals = deque(arrival for arrival in self._arrivals if arrival.evict())
        batch, events = self._batch, []
        if batch is None:
            return []
        states = self.running
        if batch.full:
            for row, state in enumerate(states):
                if state.finish is None and state.request.overflow == "stop" and batch.overflows(row):
                    events += self._event(state, state.end("length"))
        live = [row for row, state in enumerate(states) if state.finish is None]
        n_ended = len(states) - len(live)
        if not live:
            self._batch, self._groups, self._chosen_B = None, [], None
            return events
        # Removal copies the cache of the others once; otherwise every step would read the cache of a finished row.
        needed = bool(self._waiting) and len(states) + len(self.prefilling) >= self._max_batch
        if n_ended and (needed or batch.full or 4 * n_ended >= len(states)):
            assert self._chosen_B is not None
            batch.reorder(live)
            self._chosen_B = self._chosen_B[live]
            for group in self._groups:
                group.keep([row for row, state in enumerate(group.states) if state.finish is None])
            self._groups = [group for group in self._groups if group.states]
        return events

    def _admit(self) -> None:
        """Begin the prefill of waiting requests for which the batch has room."""
        room = self._max_batch - len(self.running) - len(self.prefilling)
        admitted = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        others = []
        for state in admitted:
            cache = self._prefixes.take(state.history, state.remaining, self._model.context_length)
            if cache is None:
                others.append(state)
                continue
            state.n_cached = cache.length
            batch = self._new_batch([state], state.remaining)
            batch.resume(cache)
            self._arrivals.append(Arrival([[state]], batch))
        if others:
            groups = self._grouped(others)
            rows = [state for group in groups for state in group]
            longest = max(state.remaining for state in rows)
            batch = self._new_batch(rows, longest)
            batch.begin()
            self._arrivals.append(Arrival(groups, batch))

    def _new_batch(self, states: Sequence[RequestState], room: int) -> Batch:
        histories = [state.history for state in states]
        return Batch(self._model, histories, room, self._prefill_chunk, keep_hidden=self._keep_hidden)

    def _prefill(self) -> list[Event]:
        """Process parts of the prompts of arrivals, in turn; sample the first tokens of those that are complete."""
        events: list[Event] = []
        budget = self._prefill_chunk_busy
        while self._arrivals and (budget is None or budget > 0):
            arrival, n_tokens = self._arrivals[0], self._prefill_chunk
            if self._batch is not None and budget is not None:
                n_tokens = max(1, budget // len(arrival.states))
            n_processed, logits_BV = arrival.advance(n_tokens)
            if budget is not None:
                budget -= n_processed
            if logits_BV is None:
                self._arrivals.rotate(-1)
            else:
                self._arrivals.popleft()
                events += self._join(arrival, logits_BV)
        return events

    def _join(self, arrival: Arrival, logits_BV: Tensor) -> list[Event]:
        """Sample the first tokens of an arrival, and append its rows to those of the running requests."""
        for row in range(len(arrival.states)):
            arrival.batch.keep(row, self._prefixes)
        groups = [Group(states, self._chain(states)) for states in arrival.groups]
        chosen_B, events = self._choose(groups, logits_BV)
        if self._batch is None or self._chosen_B is None:
            self._batch, self._groups, self._chosen_B = arrival.batch, groups, chosen_B
        else:
            self._batch.join(arrival.batch)
            self._groups += groups
            self._chosen_B = torch.cat((self._chosen_B, chosen_B))
        return events

    def _grouped(self, admitted: Sequence[RequestState]) -> list[list[RequestState]]:
        """Return the requests in groups that share a sampler chain."""
        by_sampler: list[list[RequestState]] = []
        for state in admitted:
            same = next((group for group in by_sampler if group[0].request.sampler == state.request.sampler), None)
            if same is None:
                by_sampler.append([state])
            else:
                same.append(state)
        return by_sampler

    def _chain(self, states: Sequence[RequestState]) -> Chain:
        limits = tuple(state.request.max_new_tokens for state in states)
        reader = partial(SecondReading, self._model, self._vocab_size, room=max(limits))
        context = SamplerContext(self._vocab_size, len(states), self._tokenizer, limits=limits, reader=reader)
        streams = [f"{state.request.seed}/{state.request.stream}" for state in states]
        return Chain(states[0].request.sampler, context, streams)

    def _choose(self, groups: Sequence[Group], logits_BV: Tensor) -> tuple[Tensor, list[Event]]:
        """Sample the next token of every row of these groups, and append it to unfinished texts."""
        logits_BV = logits_BV[:, : self._vocab_size]
        states = [state for group in groups for state in group.states]
        parts: list[Tensor] = []
        failed: set[int] = set()
        first = 0
        for group in groups:
            last, wrong = first + len(group.states), list[int]()
            histories = [state.history for state in group.states]
            traced = {row: state.request.trace for row, state in enumerate(group.states) if state.traced}
            tracer = RowTracer(logits_BV[first:last], traced, self._tokenizer) if traced else None
            chosen = group.chain.pick(logits_BV[first:last], histories, tracer, failed=wrong)
            parts.append(chosen.to(logits_BV.device))
            failed.update(first + row for row in wrong)
            for row, token in tracer.tokens.items() if tracer is not None else ():
                if row not in wrong:
                    group.states[row].trace.append(token)
            first = last
        chosen_B = parts[0] if len(parts) == 1 else torch.cat(parts)
        scores = _scores(states, logits_BV, chosen_B)
        events: list[Event] = []
        for row, (state, token) in enumerate(zip(states, chosen_B.tolist(), strict=True)):
            if state.finish is None and row in failed:
                events += self._event(state, state.fail(sampling_error()))
            elif state.finish is None:
                events += self._event(state, state.append(token, scores.get(row)))
        return chosen_B, events

    @staticmethod
    def _event(state: RequestState, piece: str) -> list[Event]:
        return [(state, piece)] if piece else []


def _scores(states: Sequence[RequestState], logits_BV: Tensor, chosen_B: Tensor) -> dict[int, TokenScore]:
    """Return the log-probability of the chosen token and of the most likely ones, for the rows that record them."""
    counts = {row: state.request.log_probabilities for row, state in enumerate(states) if state.finish is None}
    wanted = {row: count for row, count in counts.items() if count is not None}
    if not wanted:
        return {}
    rows = list(wanted)
    log_p_BV = logits_BV[rows].log_softmax(dim=-1)
    own: list[float] = log_p_BV.gather(-1, chosen_B[rows, None])[:, 0].tolist()
    best = log_p_BV.topk(min(max(wanted.values()), log_p_BV.shape[-1]), dim=-1)
    pairs = [list(zip(*both, strict=True)) for both in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    return {row: (score, top[: wanted[row]]) for row, score, top in zip(rows, own, pairs, strict=True)}
