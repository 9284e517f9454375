"""Generation requests and their state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gptkit.core.errors import GptkitError
from gptkit.inference.result import Finish, Generated, Timings
from gptkit.inference.text import RowText
from gptkit.inference.trace import TokenTrace
from gptkit.inference.trace_report import Trace
from gptkit.kinds.sampler import SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.pages.tokens import text_of

__all__ = ["Overflow", "Request", "RequestState", "TokenScore"]

Overflow = Literal["slide", "stop"]
"""Behavior at the model's context length: discard the first half of the text and continue, or end the text."""


TokenScore = tuple[float, list[tuple[int, float]]]
"""Log-probability of a token, and the most likely tokens and their log-probabilities in descending order."""


@dataclass(frozen=True)
class Request:
    """Request to continue one prompt.

    Attributes:
        prompt_ids: token ids of the prompt, at least one (see `gptkit.inference.prompts.as_ids`).
        sampler: the chain of samplers; an empty one samples from the model's distribution.
        max_new_tokens: maximum number of tokens to generate.
        stop: strings that end the text; they are not part of it.
        stop_ids: tokens that end the text.
        seed: seed of the request's random stream.
        stream: index of the random stream under the seed; equal requests with different streams get different texts.
        overflow: behavior at the model's context length.
        log_probabilities: record the log-probability of each generated token under the model, before the samplers, and those
            of this number of most likely tokens; None records nothing.
        trace: record for each token what each sampler left, with this number of candidates; 0 records nothing.

    Raises:
        GptkitError: an empty prompt, an empty stop string, or a negative number.
    """

    prompt_ids: Sequence[int] = field(repr=False)
    sampler: tuple[SamplerSpec, ...] = ()
    max_new_tokens: int = 200
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    seed: int = 0
    stream: int = 0
    overflow: Overflow = "slide"
    log_probabilities: int | None = None
    trace: int = 0

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise GptkitError("the prompt has no token", hint="Pass at least one token id.")
        if "" in self.stop:
            raise GptkitError("a stop string is empty, so no text could be generated", hint="Remove it.")
        if self.max_new_tokens < 0:
            raise GptkitError(f"max_new_tokens is {self.max_new_tokens}", hint="Use 0 or more.")
        if self.log_probabilities is not None and self.log_probabilities < 0:
            raise GptkitError(f"log_probabilities is {self.log_probabilities}", hint="Use 0 or more, or None.")
        if self.trace < 0:
            raise GptkitError(f"trace is {self.trace}", hint="Use 0 or more: the number of candidates to record.")


class RequestState:
    """State of a submitted request: its tokens and text so far.

    Attributes:
        request: the request.
        history: token ids of the prompt and the generated ones.
        log_probabilities: log-probability of each generated token under the model; empty unless the request records them.
        top_log_probabilities: for each generated token the most likely tokens with their log-probabilities, in descending
            order; empty unless the request records them.
        trace: for each sampled token what the chain did, a stop token included; empty unless the request asks for it.
        n_cached: number of tokens of the prompt that were not computed, but taken from the cache of an earlier one.
        text: the generated text.
        finish: the finish reason; None while the request is waiting or running.
        error: why the request ended, with the finish reason "error".
    """

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self.request = request
        self.history = list(request.prompt_ids)
        self.log_probabilities: list[float] = []
        self.top_log_probabilities: list[list[tuple[int, float]]] = []
        self.trace: list[TokenTrace] = []
        self.n_cached = 0
        self.text = RowText(tokenizer, self.history, request.stop)
        self.finish: Finish | None = None
        self.error: GptkitError | None = None
        self._tokenizer = tokenizer
        self._end_id = tokenizer.end_id

    @property
    def traced(self) -> bool:
        """Whether the next token is traced."""
        return self.request.trace > 0 and self.finish is None

    @property
    def n_generated(self) -> int:
        """Number of generated tokens."""
        return len(self.history) - len(self.request.prompt_ids)

    @property
    def remaining(self) -> int:
        """Number of tokens that may still be generated."""
        return self.request.max_new_tokens - self.n_generated

    def append(self, token: int, score: TokenScore | None = None) -> str:
        """Add a sampled token, and finish if it ends the text; return the new piece of text.

        Args:
            token: the token.
            score: its log-probability and the most likely tokens, where the request records them.
        """
        if token in self.request.stop_ids:
            return self.end("end" if token == self._end_id else "stop")
        self.history.append(token)
        if score is not None:
            self.log_probabilities.append(score[0])
            self.top_log_probabilities.append(score[1])
        piece = self.text.push(token)
        if self.text.stopped:
            piece += self.end("stop")
        elif self.remaining <= 0:
            piece += self.end("length")
        return piece

    def end(self, reason: Finish) -> str:
        """End the text; return the text that the decoder held back."""
        piece = self.text.finish()
        # The held-back text can complete a stop string.
        self.finish = "stop" if self.text.stopped else reason
        return piece

    def fail(self, error: GptkitError) -> str:
        """End the text because of an error; return the text that the decoder held back."""
        self.error = error
        return self.end("error")

    def result(self, timings: Timings) -> Generated:
        """Return the generated text; an unfinished request has the finish reason "interrupted"."""
        n_prompt = len(self.request.prompt_ids)
        finish = self.finish or "interrupted"
        prompt = tuple(text_of(self._tokenizer, token) for token in self.request.prompt_ids) if self.request.trace else ()
        return Generated(
            prompt_ids=self.history[:n_prompt],
            ids=self.history[n_prompt:],
            text=self.text.text,
            finish=finish,
            seed=self.request.seed,
            log_probabilities=None if self.request.log_probabilities is None else self.log_probabilities,
            top_log_probabilities=self.top_log_probabilities if self.request.log_probabilities else None,
            timings=timings,
            trace=Trace(prompt, tuple(self.trace), self.request.seed, finish) if self.request.trace else None,
        )
