"""Limits of what a client may ask for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes:
        max_tokens: maximum number of tokens to generate for one choice; the context length alone bounds it by default.
        timeout: seconds in which a request must be answered, its time in the queue included.
        max_body: maximum size of a body in bytes.
        body_timeout: seconds in which a body must arrive.
        max_choices: maximum number of choices per prompt (`n`, `best_of`).
        max_stop: maximum number of stop strings.
        max_stop_length: maximum number of characters of a stop string.
        max_top: maximum number of most likely tokens per position.
        max_samplers: maximum number of samplers in a chain.
        max_bias: maximum number of tokens in `logit_bias`.
    """

    max_tokens: int | None = None
    timeout: float = 600.0
    max_body: int = 4 * 1024 * 1024
    body_timeout: float = 30.0
    max_choices: int = 16
    max_stop: int = 16
    max_stop_length: int = 1000
    max_top: int = 20
    max_samplers: int = 32
    max_bias: int = 1024
