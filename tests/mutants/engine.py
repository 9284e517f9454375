"""Engines with one error each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.engines.engine import Progress, Score
from gptkit.engines.native import NativeSpec
from gptkit.engines.scheduled import Scheduled
from gptkit.inference.request import Request, RequestState
from gptkit.kinds.engine import EngineContext
from tests.mutants.mutant import Mutant


class Runs(Mutant, NativeSpec):
    """Base of the engines below."""

    runtime: ClassVar[type[Scheduled]]  # type: ignore[assignment]
    twin_class = NativeSpec

    def build(self, context: EngineContext) -> Scheduled:
        return self.runtime(context.load_model(), context.tokenizer, max_batch=context.max_batch)


class DropsTheText(Runs):
    """Return tokens without their text."""

    class Runtime(Scheduled):
        def step(self) -> list[Progress]:
            return [dataclasses.replace(each, text="") for each in super().step()]

    name: Literal["drops-the-text"] = "drops-the-text"
    runtime = Runtime
    caught_by = "completes-requests"


class FlattensGreedy(Runs):
    """Sample where the most likely token is requested."""

    class Runtime(Scheduled):
        def submit(self, request: Request) -> RequestState:
            return super().submit(dataclasses.replace(request, sampler=()))

    name: Literal["flattens-greedy"] = "flattens-greedy"
    runtime = Runtime
    caught_by = "most-likely-tokens"


class SharesSeeds(Runs):
    """Derive the random numbers of a request from the number of those before it."""

    class Runtime(Scheduled):
        submitted = 0

        def submit(self, request: Request) -> RequestState:
            self.submitted += 1
            return super().submit(dataclasses.replace(request, seed=self.submitted))

    name: Literal["shares-seeds"] = "shares-seeds"
    runtime = Runtime
    caught_by = "requests-are-independent"
    also = ("equal-seeds-equal-texts",)


class IgnoresSeeds(Runs):
    """Use one seed for all requests."""

    class Runtime(Scheduled):
        def submit(self, request: Request) -> RequestState:
            return super().submit(dataclasses.replace(request, seed=0))

    name: Literal["ignores-seeds"] = "ignores-seeds"
    runtime = Runtime
    caught_by = "equal-seeds-equal-texts"


class Overfills(Runs):
    """Run more requests at once than the host allows."""

    class Runtime(Scheduled):
        def __init__(self, *args: Any, max_batch: int, **options: Any) -> None:
            super().__init__(*args, max_batch=2 * max_batch, **options)

    name: Literal["overfills"] = "overfills"
    runtime = Runtime
    caught_by = "waits-for-room"


class KeepsCancelled(Runs):
    """Continue with cancelled requests."""

    class Runtime(Scheduled):
        def cancel(self, state: RequestState) -> None:
            pass

    name: Literal["keeps-cancelled"] = "keeps-cancelled"
    runtime = Runtime
    caught_by = "cancels"


class MisplacesScores(Runs):
    """Return the scores of a text with the wrong sign."""

    class Runtime(Scheduled):
        def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
            return [Score(-each.log_probability, each.top) for each in super().score(ids, top)]

    name: Literal["misplaces-scores"] = "misplaces-scores"
    runtime = Runtime
    caught_by = "scores"


class AcceptsAnything(Runs):
    """Accept every request, whatever its prompt contains."""

    class Runtime(Scheduled):
        def check(self, request: Request) -> None:
            pass

    name: Literal["accepts-anything"] = "accepts-anything"
    runtime = Runtime
    caught_by = "refuses-unknown-tokens"


class KeepsRequests(Runs):
    """Keep running requests when it is reset."""

    class Runtime(Scheduled):
        def reset(self) -> None:
            pass

    name: Literal["keeps-requests"] = "keeps-requests"
    runtime = Runtime
    caught_by = "resets"
