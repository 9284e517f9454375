"""Matching of a variant with the base in parameters, operations or cache bytes, by widths of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.core.walk import components
from gptkit.experiments.request import Match, changes_text
from gptkit.experiments.variants import Draft
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.model.cache_size import cache_bytes_per_token
from gptkit.model.gpt import GPT
from gptkit.model.plan import flops_per_token
from gptkit.model.spec import ModelSpec
from gptkit.model.tree import count

__all__ = ["TOLERANCE", "HiddenKnob", "Matched", "Sizes", "hidden_knob", "match", "measure_of", "sizes"]

TOLERANCE = 0.01
"""Largest relative difference from the base."""

_HIDDEN = 8
"""The width of a feed-forward's hidden layer is changed by at most this factor."""

_WIDTHS = 64
"""Number of widths of the model that are tried."""

Measure = Callable[[Draft], float]
"""Function that returns the matched quantity of a variant."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model.

    Attributes:
        parameters: number of parameters.
        flops_per_token: floating-point operations of a forward pass per token.
        cache_bytes_per_token: memory of one more token in the decoding cache, in fp32.
    """

    parameters: int
    flops_per_token: float
    cache_bytes_per_token: float


@dataclass(frozen=True)
class Matched:
    """Result of matching.

    Attributes:
        changes: what to change in the variant, by dotted path; empty if it matches already, or cannot.
        text: what was chosen and how well it matches, or why nothing matches.
        matches: whether the variant is within `TOLERANCE` of the base.
    """

    changes: Mapping[str, Any]
    text: str
    matches: bool


@dataclass(frozen=True)
class _Candidate:
    draft: Draft
    changes: Mapping[str, Any]
    value: float


def sizes(spec: ModelSpec, vocab_size: int) -> Sizes:
    """Return the sizes of a model, from the meta device."""
    model = GPT(spec, vocab_size, device="meta")
    return Sizes(
        count(model),
        flops_per_token(model, spec.context_length),
        cache_bytes_per_token(model, model.dtype),
    )


def measure_of(quantity: Match, vocab_size: Callable[[Draft], int]) -> Measure:
    """Return the function that measures a quantity of a variant on the meta device; not for `time`."""

    def measure(draft: Draft) -> float:
        spec, size = draft.opened.spec.model, vocab_size(draft)
        model = GPT(spec, size, device="meta")
        if quantity == "parameters":
            return count(model)
        if quantity == "flops":
            return flops_per_token(model, spec.context_length)
        return cache_bytes_per_token(model, model.dtype)

    return measure


def match(draft: Draft, target: float, quantity: Match, measure: Measure) -> Matched:
    """Change a variant's widths so that a quantity equals that of the base.

    The hidden widths of the feed-forwards are tried first, then the width of the model with them; for the cache, the rank of
    a latent attention, then the width of the model.

    Args:
        draft: the variant.
        target: the quantity of the base.
        quantity: the name of the quantity.
        measure: measures the quantity of a variant.
    """
    start = _Candidate(draft, {}, measure(draft))
    if _close(start.value, target):
        return Matched({}, f"{quantity} {_difference(start.value, target)} without a change", True)
    if target == 0 or start.value == 0:
        which = "the base" if target == 0 else "it"
        return Matched({}, f"not matched: {which} has no {_NAMES[quantity]}, whatever its width", False)
    search = _Search(draft, target, measure)
    solution = search.by_attention() if quantity == "cache" else search.by_hidden({})
    solution = solution or search.by_width(with_hidden=quantity != "cache")
    if solution is not None:
        text = f"{changes_text(solution.changes)}: {quantity} {_difference(solution.value, target)}"
        return Matched(solution.changes, text, True)
    closest = min([start, *search.tried], key=lambda each: abs(math.log(each.value / target)))
    how = f"with {changes_text(closest.changes)}" if closest.changes else "without a change"
    return Matched(
        {},
        f"not matched: no width of the feed-forward or of the model comes within {TOLERANCE:.0%}; "
        f"the closest, {how}, has {quantity} {_difference(closest.value, target)}",
        False,
    )


_NAMES: Mapping[Match, str] = {
    "parameters": "parameters",
    "flops": "operations",
    "cache": "cache that grows with the text",
    "time": "measurable time",
}


class _Search:
    """Search for widths.

    Attributes:
        tried: the valid candidates so far.
    """

    def __init__(self, draft: Draft, target: float, measure: Measure) -> None:
        self._draft, self._target, self._measure = draft, target, measure
        self.tried: list[_Candidate] = []

    def by_hidden(self, fixed: Mapping[str, Any]) -> _Candidate | None:
        """Return the candidate with other hidden widths and the given changes; None if there is none."""
        try:
            draft = self._draft.changed(fixed)
        except GptkitError:
            return None
        knob = hidden_knob(draft.opened.spec.model)
        if knob is None:
            return None
        return self._bisect(lambda width: {**fixed, **knob.changes(width)}, knob.lowest, knob.highest)

    def by_attention(self) -> _Candidate | None:
        """Return the candidate with another rank of a latent attention's cache; None if there is none."""
        attention = self._draft.opened.spec.model.attention
        rank = getattr(attention, "kv_rank", None)
        if not isinstance(attention, AttentionSpec) or not isinstance(rank, int):
            return None
        return self._bisect(lambda value: {"model.attention.kv_rank": value}, 1, rank * _HIDDEN)

    def by_width(self, *, with_hidden: bool) -> _Candidate | None:
        """Return the candidate with the width closest to the variant's, with other hidden widths; None without one.

        Args:
            with_hidden: change the hidden widths, too; otherwise the quantity is proportional to the width.
        """
        own = self._draft.opened.spec.model.d_model
        center = own if with_hidden else own * self._target / self._measure(self._draft)
        for width in _widths(own, center):
            changes = {"model.d_model": width}
            candidate = self._try(changes)
            if candidate is None:
                continue
            if _close(candidate.value, self._target):
                return candidate
            solution = self.by_hidden(changes) if with_hidden else None
            if solution is not None:
                return solution
        return None

    def _bisect(self, changes: Callable[[int], dict[str, Any]], low: int, high: int) -> _Candidate | None:
        """Return the candidate whose quantity, which grows with a width, is closest to the target, if it is close."""
        ends = [self._try(changes(end)) for end in (low, high)]
        if None in ends:
            return None
        lowest, highest = (each.value for each in ends if each is not None)
        if not lowest <= self._target <= highest or lowest == highest:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            candidate = self._try(changes(middle))
            if candidate is None:
                return None
            if candidate.value < self._target:
                low = middle
            else:
                high = middle
        of_ends = [each for each in (self._try(changes(low)), self._try(changes(high))) if each is not None]
        best = min(of_ends, key=lambda each: abs(each.value - self._target))
        return best if _close(best.value, self._target) else None

    def _try(self, changes: Mapping[str, Any]) -> _Candidate | None:
        """Return the candidate with some changes; None if the spec is invalid with them."""
        try:
            draft = self._draft.changed(changes)
            candidate = _Candidate(draft, changes, self._measure(draft))
        except GptkitError:
            return None
        self.tried.append(candidate)
        return candidate


@dataclass(frozen=True)
class HiddenKnob:
    """The hidden widths of a model's feed-forwards, changed together, so that their ratio stays.

    Attributes:
        widths: the width of each, by dotted path.
        expansions: dotted paths of fields that set these widths in another way.
    """

    widths: Mapping[str, int]
    expansions: tuple[str, ...]

    @property
    def width(self) -> int:
        """The largest width."""
        return max(self.widths.values())

    @property
    def lowest(self) -> int:
        """The smallest value of the largest width that is tried."""
        return max(1, self.width // _HIDDEN)

    @property
    def highest(self) -> int:
        """The largest value of the largest width that is tried."""
        return self.width * _HIDDEN

    def changes(self, width: int) -> dict[str, Any]:
        """Return the changes that make the largest width `width`."""
        scaled = {path: max(1, round(old * width / self.width)) for path, old in self.widths.items()}
        return {**dict.fromkeys(self.expansions), **scaled}


def hidden_knob(model: ModelSpec) -> HiddenKnob | None:
    """Return the hidden widths of the model's feed-forward; None if it has none."""
    widths, expansions = {}, []
    for path, part in components(model.feedforward, ("model", "feedforward")):
        width = getattr(part, "d_hidden", None)
        if isinstance(part, FeedForwardSpec) and isinstance(width, int):
            dotted = ".".join(map(str, path))
            widths[f"{dotted}.d_hidden"] = width
            if "expansion" in type(part).model_fields:
                expansions.append(f"{dotted}.expansion")
    return HiddenKnob(widths, tuple(expansions)) if widths else None


def _widths(own: int, center: float) -> Iterator[int]:
    """Yield widths that are close to `center`, and differ from `own` by multiples of a 64th of it, at least 4."""
    grain = max(4, own // 64)
    first = own + grain * round((center - own) / grain)
    for step in range(_WIDTHS // 2 + 1):
        for width in dict.fromkeys((first - step * grain, first + step * grain)):
            if width > 0 and width != own:
                yield width


def _close(value: float, target: float) -> bool:
    return value == target or (target != 0 and abs(value / target - 1) <= TOLERANCE)


def _difference(value: float, target: float) -> str:
    return "equal" if value == target else f"{value / target - 1:+.2%}"
