"""Schedule `inverse-sqrt`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["InverseSqrtSpec"]


class InverseSqrtSpec(ScheduleSpec):
    """Linear warmup, then decay with the inverse square root of the step.

    Formula:
        f(t) = (t + 1) / w                           for t < w
        f(t) = min(1, √(s / (t − w + shift)))         for t ≥ w
        at step t, with w warmup steps and the timescale s; by default shift = s

    Paper:
        https://arxiv.org/abs/1706.03762

    Notes:
        With the defaults, s = w and f(t) = √(w / t), the form of the paper. With shift 0, the rate stays at its peak for s
        steps before it decays, as in Adafactor (s = 10000) and T5. The rate does not depend on the number of steps, so a run
        that is resumed with more steps gives the result of the longer training.
    """

    formula: ClassVar[str] = r"""
        f(t) = \frac{t + 1}{w} \qquad t < w
        f(t) = \min\left(1, \sqrt{\frac{s}{t - w + \text{shift}}}\right) \qquad t \ge w
    """

    name: Literal["inverse-sqrt"] = "inverse-sqrt"
    warmup_steps: int = Field(0, ge=0, description="w: number of warmup steps.")
    timescale: int | None = Field(
        None,
        ge=1,
        description="s: steps over which the rate decays; by default the warmup steps, or 10000 without a warmup.",
    )
    shift: int | None = Field(
        None,
        ge=0,
        description="Steps added to those after the warmup; by default the timescale, so that decay begins at once.",
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"warmup_steps": 100}, {"timescale": 200, "shift": 0})

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        timescale = self.timescale or self.warmup_steps or 10_000
        passed = step - self.warmup_steps + (timescale if self.shift is None else self.shift)
        return math.sqrt(timescale / max(passed, timescale))
