"""What a running generation reports: events for its reader, and measurements for a listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gptkit.engines.engine import Score
from gptkit.inference.request import Request
from gptkit.inference.result import Finish

__all__ = ["Event", "Listener", "Silent"]


@dataclass(frozen=True, slots=True)
class Event:
    """New tokens of one request of a generation.

    Attributes:
        index: the request's index in the generation.
        ids: the new tokens, without a stop token.
        scores: one per new token, if the request records log-probabilities.
        text: the new piece of text that later tokens cannot change; often empty.
        finish: the finish reason, in the last event of the request.
        n_cached: number of tokens of the prompt that were taken from the cache of an earlier one.
    """

    index: int
    ids: tuple[int, ...]
    scores: tuple[Score, ...]
    text: str
    finish: Finish | None
    n_cached: int = 0


class Listener(Protocol):
    """Receiver of measurements; called on the engine's thread."""

    def first_tokens(self, seconds: float, count: int) -> None:
        """Called with the time from the submission of a request to its first token, and the number of tokens that came."""

    def next_tokens(self, seconds: float, count: int) -> None:
        """Called with the time since the previous token of a request, and the number of tokens that came then."""

    def ended(self, request: Request, n_generated: int, reason: str, seconds: float, n_cached: int) -> None:
        """Called when a request has ended.

        Args:
            request: the request.
            n_generated: number of generated tokens.
            reason: the finish reason; "cancelled" and "failed" for requests without one.
            seconds: time since the submission.
            n_cached: number of tokens of the prompt that were taken from the cache of an earlier one.
        """


class Silent:
    """Listener that ignores everything."""

    def first_tokens(self, seconds: float, count: int) -> None:
        pass

    def next_tokens(self, seconds: float, count: int) -> None:
        pass

    def ended(self, request: Request, n_generated: int, reason: str, seconds: float, n_cached: int) -> None:
        pass
