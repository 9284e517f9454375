"""Base of engines on another program that receives and returns token ids, and has a fixed context."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Engine, Progress, Score
from gptkit.inference.request import Request, RequestState
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["ExternalEngine", "Live", "joined", "seed_of"]

Handle = TypeVar("Handle")


@dataclass
class Live:
    """A request that was submitted and has not ended.

    Attributes:
        state: its state.
        restarts: how often its text was shortened because it filled the context.
    """

    state: RequestState
    restarts: int = 0


class ExternalEngine(Engine, Generic[Handle]):
    """Queue, limits and progress of requests that another program computes.

    A subclass defines `program`, `check_samplers`, `forgets`, `start`, `drop`, `step` and `score`. Texts are decoded, and
    their ends found, by gptkit. A text that fills the context starts again with its last half, if it is to slide.

    Type parameter:
        Handle: what the program calls a request.
    """

    program: ClassVar[str]
    """The program's name, for messages."""

    def __init__(self, tokenizer: Tokenizer, *, context_length: int, vocab_size: int, max_batch: int) -> None:
        super().__init__(tokenizer, context_length=context_length, vocab_size=vocab_size, max_batch=max_batch)
        self.waiting: deque[Live] = deque()
        self.running: dict[Handle, Live] = {}
        self.ended: list[RequestState] = []
        """Requests that ended without a step."""

    @abstractmethod
    def check_samplers(self, request: Request) -> None:
        """Check that the program can compute the request's samplers.

        Raises:
            GptkitError: it cannot; says which, and why.
        """

    @abstractmethod
    def forgets(self, request: Request) -> bool:
        """Whether a sampler of the request depends on earlier tokens, which the program forgets when a text starts again."""

    @abstractmethod
    def start(self, live: Live, prompt: list[int]) -> Handle:
        """Begin to compute a request.

        Args:
            live: the request; a shortened one has `restarts`.
            prompt: its tokens so far, as many as fit.
        """

    @abstractmethod
    def drop(self, handle: Handle) -> None:
        """End a running request in the program."""

    def check(self, request: Request) -> None:
        self.require_known(request.prompt_ids)
        if request.trace:
            raise GptkitError(f"{self.program} does not report what each sampler left", hint="Trace with --engine native.")
        self.check_samplers(request)
        n_prompt, slides = len(request.prompt_ids), request.overflow == "slide"
        if request.overflow == "stop" and n_prompt >= self.context_length:
            raise GptkitError(
                f"the prompt has {n_prompt:,} tokens, and {self.program}'s context {self.context_length:,} with the next "
                "one",
                hint='Shorten it, or choose overflow="slide", which uses its last part.',
            )
        if slides and n_prompt + request.max_new_tokens > self.context_length and self.forgets(request):
            raise GptkitError(
                f"the text may exceed the context of {self.context_length:,} tokens, and {self.program}'s samplers then "
                "forget what they have seen",
                hint="Lower the number of new tokens, choose overflow stop, or use --engine native.",
            )

    def submit(self, request: Request) -> RequestState:
        self.check(request)
        state = RequestState(request, self.tokenizer)
        if request.max_new_tokens == 0:
            state.end("length")
            self.ended.append(state)
        else:
            self.waiting.append(Live(state))
            self.admit()
        return state

    def cancel(self, state: RequestState) -> None:
        self.waiting = deque(live for live in self.waiting if live.state is not state)
        self.ended = [each for each in self.ended if each is not state]
        for handle, live in list(self.running.items()):
            if live.state is state:
                self.remove(handle)
        if state.finish is None:
            state.end("interrupted")

    def reset(self) -> None:
        for handle in list(self.running):
            self.remove(handle)
        self.waiting.clear()
        self.ended = []

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.running or self.ended)

    @property
    def n_running(self) -> int:
        return len(self.running)

    @property
    def n_waiting(self) -> int:
        return len(self.waiting)

    def require_fits(self, n_tokens: int) -> None:
        """Check the length of a text that is scored.

        Raises:
            GptkitError: it exceeds the context.
        """
        if n_tokens > self.context_length:
            raise GptkitError(
                f"the text has {n_tokens:,} tokens, and {self.program}'s context {self.context_length:,}", hint="Shorten it."
            )

    def admit(self) -> None:
        """Start waiting requests while there is room."""
        while self.waiting and len(self.running) < self.max_batch:
            self.begin(self.waiting.popleft())

    def begin(self, live: Live) -> None:
        """Start a request with as many of its tokens as leave room for one more; with half of them, if it starts again."""
        kept = self.context_length - 1 if live.restarts == 0 else max(1, self.context_length // 2)
        self.running[self.start(live, live.state.history[-kept:])] = live

    def remove(self, handle: Handle) -> None:
        """Remove a running request, and end it in the program."""
        del self.running[handle]
        self.drop(handle)

    def filled(self, live: Live) -> str:
        """Continue or end a request that no longer runs because its text fills the context; return what ends its text."""
        if live.state.request.overflow != "slide":
            return live.state.end("length")
        live.restarts += 1
        self.begin(live)
        return ""

    def progress(self, state: RequestState, before: int, text: str) -> Progress | None:
        """Return the progress of a request since it had `before` generated tokens; None if there is none."""
        scores = zip(state.log_probabilities[before:], state.top_log_probabilities[before:], strict=True)
        ids = tuple(state.history[len(state.request.prompt_ids) + before :])
        scored = tuple(Score(value, tuple(best)) for value, best in scores)
        return Progress(state, ids, scored, text, state.finish, state.error) if ids or text or state.finish else None


def joined(first: Progress | None, second: Progress) -> Progress:
    """Return the progress of two parts of a step as one."""
    if first is None:
        return second
    ids, scores = first.ids + second.ids, first.scores + second.scores
    return Progress(first.state, ids, scores, first.text + second.text, second.finish, second.error)


def seed_of(request: Request, restarts: int) -> int:
    """Return a seed of 64 bits for the program's random numbers, from the request's seed and stream."""
    digest = hashlib.sha256(f"{request.seed}/{request.stream}/{restarts}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
