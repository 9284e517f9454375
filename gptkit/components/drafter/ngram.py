"""Drafter `ngram`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gptkit.components.drafter.length import DraftLength
from gptkit.kinds.drafter import MAX_DRAFT, Drafter, DrafterContext, DrafterSpec

__all__ = ["Ngram", "NgramSpec"]


class Ngram(Drafter):
    """Runtime part of `NgramSpec`: an index of the n-grams of one text, extended by the new tokens of each call."""

    def __init__(self, k: int, min_n: int, max_n: int, adaptive: bool) -> None:
        self._length = DraftLength(k, adaptive)
        self._sizes = range(max_n, min_n - 1, -1)
        self._next: dict[tuple[int, ...], int] = {}
        """The position after the latest occurrence of each n-gram that is followed by a token."""
        self._n_indexed = 0

    def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
        n_tokens = len(history)
        for end in range(self._n_indexed, n_tokens):
            for n in self._sizes:
                if n <= end:
                    self._next[tuple(history[end - n : end])] = end
        self._n_indexed = n_tokens
        count = min(limit, self._length.value)
        for n in self._sizes:
            start = self._next.get(tuple(history[n_tokens - n :])) if n < n_tokens else None
            if start is not None:
                period = n_tokens - start  # a repetition that reaches the end of the text is continued
                return [history[start + index % period] for index in range(count)]
        return []

    def verified(self, n_proposed: int, n_accepted: int) -> None:
        self._length.update(n_proposed, n_accepted)


class NgramSpec(DrafterSpec):
    """Prompt lookup: propose what followed the latest occurrence of the last n tokens in the text itself.

    It needs no other model and takes microseconds. It is effective where texts repeat themselves: code, edited or summarized
    documents, structured data.

    Formula:
        n = max_n, …, min_n: the largest n for which t < T exists with  x[t − n : t] = x[T − n : T]  (the latest t)
        proposal = x[t], x[t + 1], …, periodic from T on

    Paper:
        https://arxiv.org/abs/2304.04487, and prompt lookup decoding (A. Saxena, 2023)
    """

    formula: ClassVar[str] = r"x_{t-n:t} = x_{T-n:T} \qquad \hat{x}_{T+i} = x_{t+i}"

    name: Literal["ngram"] = "ngram"
    k: int = Field(10, ge=1, le=MAX_DRAFT, description="Maximum number of proposed tokens.")
    min_n: int = Field(2, ge=1, description="Minimum number of equal tokens.")
    max_n: int = Field(4, ge=1, le=64, description="Maximum number of equal tokens, which is tried first.")
    adaptive: bool = Field(True, description="Propose fewer tokens after rejected ones, and more after accepted ones.")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> NgramSpec:
        if self.min_n > self.max_n:
            raise PydanticCustomError("sizes", f"min_n is {self.min_n}, more than max_n, {self.max_n}; lower it")
        return self

    def build(self, context: DrafterContext) -> Ngram:
        return Ngram(self.k, self.min_n, self.max_n, self.adaptive)
