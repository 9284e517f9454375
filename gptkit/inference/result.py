"""Results of generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gptkit.inference.trace_report import Trace

__all__ = ["Alternative", "Finish", "Generated", "Timings"]

Finish = Literal["length", "stop", "end", "interrupted", "error"]
"""Finish reason: maximum length, stop string or stop token, end token, Ctrl-C or a cancelled request, or an error."""


@dataclass(frozen=True)
class Timings:
    """Timings of a batch, excluding callbacks.

    Attributes:
        prompt_tokens: number of tokens in all prompts.
        prefill_seconds: time until the first token of each text.
        decoded_tokens: number of generated tokens, without the first of each text.
        decode_seconds: time to decode these.
        drafted_tokens: number of tokens that a drafter proposed and the model verified; 0 without a drafter.
        accepted_tokens: number of these that became a part of a text.
    """

    prompt_tokens: int
    prefill_seconds: float
    decoded_tokens: int
    decode_seconds: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second; 0 without prompt tokens."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Decoded tokens per second, over all texts of the batch; 0 without decoded tokens."""
        return self.decoded_tokens / self.decode_seconds if self.decode_seconds else 0.0


@dataclass(frozen=True)
class Alternative:
    """One continuation that a search found (`gptkit.kinds.decoding`).

    Attributes:
        ids: the generated tokens, without the stop token.
        text: the text, without the stop string.
        finish: the finish reason.
        score: the number by which the decoding ranks continuations; higher is better.
    """

    ids: list[int] = field(repr=False)
    text: str
    finish: Finish
    score: float


@dataclass(frozen=True)
class Generated:
    """One generated text.

    Attributes:
        prompt_ids: the tokens of the prompt.
        ids: the generated tokens, without the stop token, but with the tokens of a stop string.
        text: the text after the prompt, without the stop string.
        finish: the finish reason.
        seed: the seed of the batch, random by default; it reproduces the text.
        log_probabilities: log-probability of each of `ids` under the model, before the samplers; None unless requested.
        top_log_probabilities: for each of `ids` the most likely tokens in its place with their log-probabilities, the most
            likely first; None unless requested.
        timings: timings of the whole batch.
        alternatives: all continuations that a decoding other than `sample` found, best first; this text is the first.
        trace: why each token was drawn; None unless requested. Where a token ended the text, it is the last one there.
    """

    prompt_ids: list[int] = field(repr=False)
    ids: list[int] = field(repr=False)
    text: str
    finish: Finish
    seed: int
    log_probabilities: list[float] | None = field(repr=False)
    timings: Timings = field(repr=False)
    top_log_probabilities: list[list[tuple[int, float]]] | None = field(default=None, repr=False)
    trace: Trace | None = field(default=None, repr=False)
    alternatives: tuple[Alternative, ...] = field(default=(), repr=False)

    def with_alternatives(self, alternatives: Sequence[Alternative]) -> Generated:
        """Return the same text with what else the search found."""
        return replace(self, alternatives=tuple(alternatives))
