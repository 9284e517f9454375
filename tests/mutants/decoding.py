"""Decodings with one error each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gptkit.components.decoding.beam import BeamSpec
from gptkit.components.decoding.best_of import BestOfSpec
from gptkit.components.decoding.modules.beam import BeamSearch
from gptkit.components.decoding.modules.best_of import Sampling
from gptkit.kinds.decoding import Continuation, DecodingContext, Step
from tests.mutants.mutant import Mutant, become


class Searching(Mutant, BeamSpec):
    """Base of the beam searches below."""

    runtime: ClassVar[type[BeamSearch]] = BeamSearch
    twin_class = BeamSpec

    def build(self, context: DecodingContext) -> BeamSearch:
        return become(super().build(context), self.runtime)


class ReturnsOtherTexts(Searching):
    """Return the tokens in reverse."""

    class Runtime(BeamSearch):
        def results(self) -> list[Continuation]:
            return [Continuation(each.ids[::-1], each.score, each.ended) for each in super().results()]

    name: Literal["returns-other-texts"] = "returns-other-texts"
    runtime = Runtime
    caught_by = "returns-what-it-formed"
    also = ("finds-the-only-text", "never-chooses-excluded-tokens")


class MissesTheStopToken(Searching):
    """Continue texts after a stop token."""

    name: Literal["misses-the-stop-token"] = "misses-the-stop-token"
    caught_by = "keeps-to-the-limits"
    also = ("finds-the-only-text",)

    def build(self, context: DecodingContext) -> BeamSearch:
        return super().build(DecodingContext(context.vocab_size, context.max_new_tokens, frozenset(), context.stream))


class IgnoresTheLimit(Searching):
    """Generate one token more than allowed."""

    name: Literal["ignores-the-limit"] = "ignores-the-limit"
    caught_by = "keeps-to-the-limits"

    def build(self, context: DecodingContext) -> BeamSearch:
        n = context.max_new_tokens + 1
        return super().build(DecodingContext(context.vocab_size, n, context.stop_ids, context.stream))


class ChoosesExcludedTokens(Searching):
    """Take an excluded token as merely unlikely."""

    class Runtime(BeamSearch):
        def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
            return super().step(logits_RV.clamp_min(3.0), ended, hidden_RTE)

    name: Literal["chooses-excluded-tokens"] = "chooses-excluded-tokens"
    runtime = Runtime
    caught_by = "never-chooses-excluded-tokens"
    also = ("finds-the-only-text", "stops-at-stop-strings")


class MissesStopStrings(Searching):
    """Continue texts that have reached a stop string."""

    class Runtime(BeamSearch):
        def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
            return super().step(logits_RV, (), hidden_RTE)

    name: Literal["misses-stop-strings"] = "misses-stop-strings"
    runtime = Runtime
    caught_by = "stops-at-stop-strings"


class RanksTheWorstFirst(Searching):
    """Return the continuations in ascending order."""

    class Runtime(BeamSearch):
        def results(self) -> list[Continuation]:
            return super().results()[::-1]

    name: Literal["ranks-the-worst-first"] = "ranks-the-worst-first"
    runtime = Runtime
    caught_by = "ranks-its-results"


class EndsTooEarly(Searching):
    """Discard the last token of every continuation."""

    class Runtime(BeamSearch):
        def results(self) -> list[Continuation]:
            return [Continuation(each.ids[:-1], each.score, ended=True) for each in super().results()]

    name: Literal["ends-too-early"] = "ends-too-early"
    runtime = Runtime
    caught_by = "finds-the-only-text"
    also = ("stops-at-stop-strings",)


class ChangesLogits(Searching):
    """Change the logits in place."""

    class Runtime(BeamSearch):
        def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
            return super().step(logits_RV.div_(2), ended, hidden_RTE)

    name: Literal["changes-logits"] = "changes-logits"
    runtime = Runtime
    caught_by = "changes-nothing-in-place"


class DrawsFromTorch(Mutant, BestOfSpec):
    """Draw from torch's global generator."""

    class Runtime(Sampling):
        def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
            return super().step(logits_RV + torch.rand_like(logits_RV), ended, hidden_RTE)

    name: Literal["draws-from-torch"] = "draws-from-torch"
    caught_by = "same-input-same-output"

    def build(self, context: DecodingContext) -> Any:
        return become(super().build(context), self.Runtime)


class DeclaresNoDraws(Mutant, BestOfSpec):
    """Declare that no random number is drawn."""

    deterministic: ClassVar[bool] = True
    name: Literal["declares-no-draws"] = "declares-no-draws"
    caught_by = "declares-what-it-draws"
