"""Schedules: the factor of the learning rate over the steps of a training."""

from __future__ import annotations

from typing import cast

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import named, subjects
from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["draw"]

STEPS = 1000


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the factor of every step, for the defaults and for two examples."""
    variants = [(named(subject) or "defaults", cast("ScheduleSpec", subject.spec)) for subject in subjects(cls, registry)]
    if len(variants) == 1 and "warmup_steps" in cls.model_fields:
        variants.append(("with warmup_steps 100", variants[0][1].replace(warmup_steps=100)))
    series = []
    for index, (label, spec) in enumerate(variants[:3]):
        points = [(float(step), spec.factor(step, STEPS)) for step in [*range(0, STEPS, 5), STEPS - 1]]
        series.append(Series(points, label, index + 1, "line" if index == 0 else "dashed"))
    last = series[0].points[-1][1]
    described = f"The factor is {max(y for _, y in series[0].points):.2f} at most, and {last:.3f} at the last step."
    plot = Plot("learning rate over steps", "step", "factor of the peak rate", series[::-1], described)
    return Figure([plot], f"The factor that the schedule returns for each step of a training of {STEPS:,} steps.")
