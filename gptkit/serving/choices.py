"""Choices of an answer: text, tokens and their log-probabilities, in the forms of the two APIs."""

from __future__ import annotations

import codecs
import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gptkit.engines.engine import Score
from gptkit.inference.result import Finish
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.serving.events import Event

__all__ = ["Choice", "Token", "chat_scores", "completion_scores", "finish_reason", "prompt_tokens"]

_LOWEST = -9999.0
"""Value of a log-probability of -inf, which JSON cannot express."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a choice, with the position of its first character in the choice's text."""

    id: int
    start: int
    score: Score | None


class Choice:
    """One choice, which grows by events.

    Text that may begin a stop string is held back by the engine, and the tokens that belong to it are held back here: those
    of a stop string are never part of an answer.

    Args:
        tokenizer: the tokenizer.
        offset: number of characters before the generated text (an echoed prompt).
    """

    def __init__(self, tokenizer: Tokenizer, offset: int = 0) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held: deque[Token] = deque()
        self._end = offset
        self._shown = offset
        self.pieces: list[str] = []
        self.tokens: list[Token] = []
        self.n_generated = 0
        self.n_cached = 0
        self.sum_of_scores = 0.0
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def add(self, event: Event) -> list[Token]:
        """Add an event; return the tokens whose text is certain now."""
        scores: Sequence[Score | None] = event.scores or [None] * len(event.ids)
        for token, score in zip(event.ids, scores, strict=True):
            self._held.append(Token(token, self._end, score))
            self._end += len(self._decoder.decode(self._tokenizer.token_bytes(token)))
            self.sum_of_scores += 0.0 if score is None else score.log_probability
        self.n_generated += len(event.ids)
        self.n_cached = event.n_cached
        self.pieces.append(event.text)
        self._shown += len(event.text)
        self.finish = event.finish
        whole = event.finish in ("length", "end")
        ready = []
        while self._held and (whole or self._held[0].start < self._shown):
            ready.append(self._held.popleft())
        self.tokens += ready
        return ready


def finish_reason(finish: Finish | None) -> str | None:
    """Return the finish reason in the terms of the API."""
    return None if finish is None else "length" if finish == "length" else "stop"


@functools.lru_cache(maxsize=65_536)
def _name(data: bytes) -> str:
    """Return the text of a token; of one that is not a text, its bytes as OpenAI writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def prompt_tokens(tokenizer: Tokenizer, ids: Sequence[int], scores: Sequence[Score], n_hidden: int) -> list[Token]:
    """Return the tokens of an echoed prompt.

    Args:
        tokenizer: the tokenizer.
        ids: the tokens.
        scores: one for each token but the first.
        n_hidden: number of tokens at the beginning that are not part of the prompt's text (a start token).
    """
    decoder, start, tokens = tokenizer.stream(), 0, []
    for index, (token, score) in enumerate(zip(ids, (None, *scores), strict=True)):
        tokens.append(Token(token, start, score))
        if index >= n_hidden:
            start += len(decoder.push(token))
    return tokens


def _finite(value: float) -> float:
    return max(value, _LOWEST)


def completion_scores(tokenizer: Tokenizer, tokens: Sequence[Token]) -> dict[str, Any]:
    """Return the log-probabilities in the form of the completions API.

    The token itself is one of `top_logprobs`, beside the most likely ones. The first token of a prompt has null.
    """

    def top(token: Token) -> dict[str, float] | None:
        if token.score is None:
            return None
        pairs = (*token.score.top, (token.id, token.score.log_probability))
        return {_name(tokenizer.token_bytes(each)): _finite(value) for each, value in pairs}

    return {
        "tokens": [_name(tokenizer.token_bytes(token.id)) for token in tokens],
        "token_logprobs": [None if token.score is None else _finite(token.score.log_probability) for token in tokens],
        "top_logprobs": [top(token) for token in tokens],
        "text_offset": [token.start for token in tokens],
    }


def chat_scores(tokenizer: Tokenizer, tokens: Sequence[Token]) -> dict[str, Any]:
    """Return the log-probabilities in the form of the chat API."""

    def entry(token: int, value: float) -> dict[str, Any]:
        data = tokenizer.token_bytes(token)
        return {"token": _name(data), "logprob": _finite(value), "bytes": list(data)}

    content = []
    for token in tokens:
        if token.score is not None:
            own = entry(token.id, token.score.log_probability)
            content.append(own | {"top_logprobs": [entry(*each) for each in token.score.top]})
    return {"content": content, "refusal": None}
