"""Repetitions in a traced computation, folded so that each repeated step is drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gptkit.docs.figures.tracing import Step

__all__ = ["Repeat", "folded"]


@dataclass(frozen=True)
class Repeat:
    """Consecutive steps that are computed several times, each time from the results of the previous one.

    Attributes:
        first: index of the first of them.
        last: index of the last of them.
        times: how many times they are computed.
        depth: number of repeats inside this one, along the deepest nesting.
    """

    first: int
    last: int
    times: int
    depth: int = 0


@dataclass(frozen=True)
class _Item:
    """A folded step.

    Attributes:
        what: the step without its sources; equal ones are one step, computed again.
        repeats: the repeats that it is in, relative to it.
        steps: the traced steps that it stands for, with everything between the first and the last of them.
    """

    what: Step
    repeats: tuple[Repeat, ...]
    steps: range


def folded(steps: Sequence[Step]) -> tuple[list[Step], tuple[Repeat, ...]]:
    """Fold equal sequences of steps that follow each other, short ones first, so that repeats of repeats fold too.

    A sequence is a repetition if it calls a child, and reads what the sequence before it computed.

    Returns:
        The folded steps, each with the earlier folded steps that it reads (what it reads of the previous repetition is left
        to the repeat); and the repeats, inner ones before those that contain them.
    """
    items = [_Item(replace(step, sources=()), (), range(at, at + 1)) for at, step in enumerate(steps)]
    places = list(range(len(steps)))
    period = 1
    while 2 * period <= len(items):
        starts = range(len(items) - 2 * period + 1)
        start = next((at for at in starts if _times(items, at, period, steps) > 1), None)
        if start is None:
            period += 1
            continue
        times = _times(items, start, period, steps)
        removed = (times - 1) * period
        places = [_moved(place, start, period, removed) for place in places]
        group = items[start : start + period]
        depth = 1 + max((repeat.depth for item in group for repeat in item.repeats), default=-1)
        end = items[start + removed + period - 1].steps.stop
        items[start : start + removed + period] = [
            _Item(item.what, (*item.repeats, Repeat(-at, period - 1 - at, times, depth)), range(item.steps.start, end))
            for at, item in enumerate(group)
        ]
        period = 1
    sources: list[set[int]] = [set() for _ in items]
    for place, step in zip(places, steps, strict=True):
        read = {-1 if source < 0 else places[source] for source in step.sources}
        sources[place] |= {each for each in read if each < place}
    repeats = {
        replace(repeat, first=at + repeat.first, last=at + repeat.last)
        for at, item in enumerate(items)
        for repeat in item.repeats
    }
    result = [replace(item.what, sources=tuple(sorted(read))) for item, read in zip(items, sources, strict=True)]
    return result, tuple(sorted(repeats, key=lambda repeat: (repeat.depth, repeat.first)))


def _times(items: Sequence[_Item], start: int, period: int, steps: Sequence[Step]) -> int:
    """Return how many times the `period` items from `start` are computed one after the other."""
    group = [(item.what, item.repeats) for item in items[start : start + period]]
    if not any(what.what for what, _ in group):
        return 1
    times = 1
    previous = _extent(items[start : start + period])
    while True:
        begin = start + times * period
        following = items[begin : begin + period]
        if [(item.what, item.repeats) for item in following] != group:
            return times
        own = _extent(following)
        if not any(source in previous for at in own for source in steps[at].sources):
            return times
        times, previous = times + 1, own


def _extent(items: Sequence[_Item]) -> range:
    """Return the traced steps of items that follow each other."""
    return range(items[0].steps.start, max(item.steps.stop for item in items))


def _moved(place: int, start: int, period: int, removed: int) -> int:
    """Return the index of an item after the repetitions of those from `start` have been removed."""
    if place < start + period:
        return place
    return start + (place - start) % period if place < start + period + removed else place - removed
