"""Runtime contract of engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from gptkit.core.errors import GptkitError
from gptkit.inference.request import Request, RequestState
from gptkit.inference.result import Finish
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["Engine", "Progress", "Score"]


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probabilities at one position of a text, under the model and before the samplers.

    Attributes:
        log_probability: that of the token of the text, in nats.
        top: the most likely tokens and their log-probabilities, in descending order.
    """

    log_probability: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Result of one step for one request.

    Attributes:
        state: the request's state, as `Engine.submit` returned it.
        ids: the new tokens; several where an engine accepts more than one per step.
        scores: one per new token; empty unless the request asks for them (`Request.log_probabilities`).
        text: the new piece of text that later tokens cannot change; often empty.
        finish: the finish reason; None while the request runs.
        error: why the request ended without a result; the other requests are not affected.
    """

    state: RequestState
    ids: tuple[int, ...] = ()
    scores: tuple[Score, ...] = ()
    text: str = ""
    finish: Finish | None = None
    error: GptkitError | None = None


class Engine(ABC):
    """Generator for any number of requests at once: every `step` advances those that run.

    A host calls all methods from one thread, one at a time, except `check`, which other threads may call meanwhile. The
    text of a request does not depend on the others. Requests are defined by token ids, a chain of samplers, a seed and
    conditions that end the text (`gptkit.inference.Request`), and equal requests get equal texts.

    Args:
        tokenizer: the tokenizer of the model.
        context_length: maximum number of tokens of a text, including its prompt.
        vocab_size: number of token ids.
        max_batch: maximum number of requests that run at the same time; others wait.
    """

    def __init__(self, tokenizer: Tokenizer, *, context_length: int, vocab_size: int, max_batch: int) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.vocab_size = vocab_size
        self.max_batch = max_batch

    @abstractmethod
    def check(self, request: Request) -> None:
        """Check that the request can be computed, without starting it.

        Raises:
            GptkitError: it cannot: a sampler is not supported or lacks something (an end token, an id), or the prompt does
                not fit the context.
        """

    @abstractmethod
    def submit(self, request: Request) -> RequestState:
        """Queue a request; `step` starts it when there is room, in the order of submission.

        Raises:
            GptkitError: as for `check`.
        """

    @abstractmethod
    def cancel(self, state: RequestState) -> None:
        """End a waiting or running request, whose resources become free no later than in the next step."""

    @abstractmethod
    def step(self) -> list[Progress]:
        """Advance every running request by at least one token, and start waiting ones.

        An error that concerns one request is reported as its progress. Any other exception ends all requests: the host then
        calls `reset`.
        """

    @abstractmethod
    def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        """Score each token of a text given the preceding ones: tokens 1 … T - 1.

        Args:
            ids: the text.
            top: number of most likely tokens to return for each position.
        """

    @abstractmethod
    def reset(self) -> None:
        """Discard all requests without results, and make the engine usable again after an exception."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether `step` has nothing to do."""

    @property
    @abstractmethod
    def n_running(self) -> int:
        """Number of requests that are computed, without those that ended."""

    @property
    @abstractmethod
    def n_waiting(self) -> int:
        """Number of requests that are queued."""

    def require_known(self, ids: Sequence[int]) -> None:
        """Check that the tokens of a prompt are in the vocabulary.

        Raises:
            GptkitError: one is not.
        """
        outside = next((token for token in ids if not 0 <= token < self.vocab_size), None)
        if outside is not None:
            raise GptkitError(
                f"the prompt contains token {outside}, but the model's vocabulary has {self.vocab_size} tokens",
                hint="Use the model's tokenizer.",
            )

    @property
    def n_drafted(self) -> int:
        """Number of tokens that a drafter proposed so far (speculative decoding); 0 without one."""
        return 0

    @property
    def n_accepted(self) -> int:
        """Number of these that became a part of a text."""
        return 0

    def close(self) -> None:
        """Release what the engine holds; it is not used afterwards."""
