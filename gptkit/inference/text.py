"""Text from tokens, one by one: nothing is shown that a later token could still change."""

from __future__ import annotations

from collections.abc import Sequence

from gptkit.kinds.tokenizer import StreamDecoder, Tokenizer

__all__ = ["RowText"]

_PRIMER = 8
"""Prompt tokens that the decoder sees: enough for a character that the prompt leaves incomplete, and for tokenizers
that drop the space before the first word of a text."""


class RowText:
    """The text of one row while it is being written.

    Held back are bytes that are not yet a whole character and text that may be the beginning of a stop string. The
    text ends before the stop string that is complete first, of two that end together the longer one; so it makes no
    difference how the text falls into tokens.

    Args:
        tokenizer: gives the decoder.
        prompt_ids: what the text continues; nothing of it is part of the text.
        stop: stop strings, none of them empty.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stop: Sequence[str]) -> None:
        self._decoder: StreamDecoder = tokenizer.stream()
        for token in prompt_ids[-_PRIMER:]:
            self._decoder.push(token)
        self._stop = tuple(stop)
        self._held = ""
        self._pieces: list[str] = []
        self.stopped = False
        """Whether a stop string came."""

    @property
    def text(self) -> str:
        """What is certain so far."""
        return "".join(self._pieces)

    def push(self, token: int) -> str:
        """The piece of text that has become certain with this token; often empty."""
        return self._feed(self._decoder.push(token))

    def finish(self) -> str:
        """What was held back, as no token will follow."""
        if self.stopped:
            return ""
        piece = self._feed(self._decoder.finish())
        if self._held and not self.stopped:
            piece += self._emit(self._held)
            self._held = ""
        return piece

    def _feed(self, new: str) -> str:
        if not self._stop or not new:
            return self._emit(new)
        held = self._held + new
        ends = [(start + len(stop), start) for stop in self._stop if (start := held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            return self._emit(held[: min(ends)[1]])
        n_back = max(_overlap(held, stop) for stop in self._stop)
        self._held = held[len(held) - n_back :]
        return self._emit(held[: len(held) - n_back])

    def _emit(self, piece: str) -> str:
        if piece:
            self._pieces.append(piece)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
