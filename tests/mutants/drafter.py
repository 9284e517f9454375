"""Drafters with one error each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.components.drafter.ngram import Ngram, NgramSpec
from gptkit.kinds.drafter import DrafterContext
from tests.mutants.mutant import Mutant


class Looks(Mutant, NgramSpec):
    """Base of the drafters below."""

    runtime: ClassVar[type[Ngram]] = Ngram
    twin_class = NgramSpec

    def build(self, context: DrafterContext) -> Ngram:
        return self.runtime(self.k, self.min_n, self.max_n, self.adaptive)


class IgnoresTheLimit(Looks):
    """Propose k tokens, however many are requested."""

    class Runtime(Ngram):
        def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
            return super().propose(history, 99)

    name: Literal["ignores-the-limit"] = "ignores-the-limit"
    runtime = Runtime
    caught_by = "proposes-tokens"


class LeavesTheVocabulary(Looks):
    """Propose ids below zero."""

    class Runtime(Ngram):
        def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
            return [-1 for _ in super().propose(history, limit)]

    name: Literal["leaves-the-vocabulary"] = "leaves-the-vocabulary"
    runtime = Runtime
    caught_by = "proposes-tokens"


class TakesTheEnd(Looks):
    """Remove the last tokens of the history while searching."""

    class Runtime(Ngram):
        def propose(self, history: Any, limit: int) -> Sequence[int]:
            proposal = super().propose(history, limit)
            del history[max(1, len(history) - 1) :]
            return proposal

    name: Literal["takes-the-end"] = "takes-the-end"
    runtime = Runtime
    caught_by = "changes-nothing-in-place"


class Guesses(Looks):
    """Propose a random number of tokens."""

    class Runtime(Ngram):
        def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
            return super().propose(history, limit)[: random.randint(0, limit)]

    name: Literal["guesses"] = "guesses"
    runtime = Runtime
    caught_by = "same-input-same-output"
    also = ("texts-are-independent",)


class SharesItsIndex(Looks):
    """Search the n-grams of all texts."""

    class Runtime(Ngram):
        latest: ClassVar[list[int]] = []

        def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
            type(self).latest, previous = list(history), type(self).latest
            return previous[:limit] if previous and previous[0] != history[0] else super().propose(history, limit)

    name: Literal["shares-its-index"] = "shares-its-index"
    runtime = Runtime
    caught_by = "texts-are-independent"
    also = ("same-input-same-output",)
