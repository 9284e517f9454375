"""Matching of a variant with the base in the time of a training step, which is measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.experiments.matching import TOLERANCE, HiddenKnob, Matched, hidden_knob
from gptkit.experiments.request import changes_text
from gptkit.experiments.variants import Draft
from gptkit.runs.bench_step import StepTrial

__all__ = ["match_time"]

_ROUNDS = 9
"""Measurements of a pair of steps."""

_TRIES = 6


def match_time(draft: Draft, base: Draft, vocab_size: int, base_vocab_size: int) -> Matched:
    """Change the hidden widths of a variant so that a training step takes as long as one of the base.

    Steps of both are measured alternately, so that other load of the machine affects both. Each width follows from the
    previous ones by linear interpolation.

    Args:
        draft: the variant.
        base: the base.
        vocab_size: the variant's vocabulary size.
        base_vocab_size: that of the base.
    """
    reference = StepTrial(base.opened.spec, base_vocab_size)
    try:
        ratio = _ratio(draft, vocab_size, reference)
        if abs(ratio - 1) <= TOLERANCE:
            return Matched({}, f"time {ratio - 1:+.1%} (measured) without a change", True)
        knob = hidden_knob(draft.opened.spec.model)
        if knob is None:
            return Matched({}, f"not matched: no feed-forward with d_hidden; time {ratio - 1:+.1%} (measured)", False)
        return _interpolated(draft, vocab_size, reference, knob, ratio)
    finally:
        reference.close()


def _interpolated(draft: Draft, vocab_size: int, reference: StepTrial, knob: HiddenKnob, ratio: float) -> Matched:
    points = {knob.width: ratio}
    for _ in range(_TRIES):
        width = min(max(_next(points), knob.lowest), knob.highest)
        if width in points:
            break
        points[width] = _ratio(draft.changed(knob.changes(width)), vocab_size, reference)
        if abs(points[width] - 1) <= TOLERANCE:
            break
    best = min(points, key=lambda width: abs(points[width] - 1))
    changes: Mapping[str, Any] = knob.changes(best) if best != knob.width else {}
    text = f"{changes_text(changes) or 'without a change'}: time {points[best] - 1:+.1%} (measured)"
    if abs(points[best] - 1) <= TOLERANCE:
        return Matched(changes, text, True)
    if best in (knob.lowest, knob.highest):
        return Matched(
            {}, f"not matched: the time of the feed-forward is too small a part of a step; closest: {text}", False
        )
    # Widths on both sides were measured: what is left is the noise of the machine.
    return Matched(changes, f"{text}; closer widths cannot be distinguished on this machine", False)


def _next(points: Mapping[int, float]) -> int:
    """Return the width at which the ratio should be 1, from the two points that are closest to it."""
    by_distance = sorted(points, key=lambda width: abs(points[width] - 1))
    first = by_distance[0]
    if len(by_distance) == 1:
        return max(1, round(first / points[first]))
    second = by_distance[1]
    slope = (points[second] - points[first]) / (second - first)
    if slope <= 0:  # noise
        return max(1, round(first / points[first]))
    return max(1, round(first + (1 - points[first]) / slope))


def _ratio(draft: Draft, vocab_size: int, reference: StepTrial) -> float:
    """Return the time of a variant's training step, divided by that of the reference.

    Raises:
        GptkitError: the variant cannot be trained.
    """
    trial = StepTrial(draft.opened.spec, vocab_size)
    try:
        for each in (trial, reference, trial, reference):
            each.step()
        return statistics.median(trial.step() / reference.step() for _ in range(_ROUNDS))
    except RuntimeError as error:
        raise GptkitError(f"{draft.label}: a training step failed: {error}") from error
    finally:
        trial.close()
