"""Warnings about a spec that is valid and probably not what its author wants."""

from __future__ import annotations

from collections.abc import Iterator

from gptkit.runs.spec import ExperimentSpec

__all__ = ["cautions"]

_MAX_PROBED = 10_000
_NEARLY = 0.99


def cautions(spec: ExperimentSpec) -> Iterator[str]:
    """Yield a sentence for each questionable combination of values, beginning with the field's path."""
    training = spec.training
    steps = training.steps
    probed = range(0, steps, max(1, steps // _MAX_PROBED))
    highest = max(training.schedule.factor(step, steps) for step in (*probed, steps - 1))
    warmup = getattr(training.schedule, "warmup_steps", 0)
    if warmup > steps and highest < _NEARLY:
        yield (
            f"training.schedule.warmup_steps: the warmup of {warmup:,} steps is longer than the training of {steps:,}; "
            f"the learning rate reaches {highest:.0%} of its peak. Lower warmup_steps, or raise training.steps"
        )
