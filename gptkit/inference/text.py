"""Streaming decoder: emits text only once later tokens cannot change it."""

from __future__ import annotations

from collections.abc import Sequence

from gptkit.kinds.tokenizer import StreamDecoder, Tokenizer

__all__ = ["RowText"]

_PRIMER = 8
"""Number of prompt tokens fed to the decoder: enough to complete a partial character, and for tokenizers that drop the space
before the first word of a text."""


class RowText:
    """Incrementally decoded text of one row.

    Incomplete characters, and text that may begin a stop string, are held back. The text ends before the stop string that
    is completed first (the longer one if two end at the same position), independent of the tokenization.

    Args:
        tokenizer: the tokenizer.
        prompt_ids: the tokens of the prompt, which is not part of the text.
        stop: stop strings, not empty.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stop: Sequence[str]) -> None:
        self._decoder: StreamDecoder = tokenizer.stream()
        for token in prompt_ids[-_PRIMER:]:
            self._decoder.push(token)
        self._stop = tuple(stop)
        self._held = ""
        self._pieces: list[str] = []
        self.stopped = False
        """Whether a stop string was reached."""

    @property
    def text(self) -> str:
        """The text emitted so far."""
        return "".join(self._pieces)

    def push(self, token: int) -> str:
        """Add a token; return the newly emitted text, often empty."""
        return self._feed(self._decoder.push(token))

    def finish(self) -> str:
        """Return the text held back, at the end of generation."""
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
    """Return the length of the longest suffix of `text` that is a proper prefix of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
