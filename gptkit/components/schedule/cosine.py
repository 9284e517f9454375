"""Schedule `cosine`."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["CosineSpec"]


class CosineSpec(ScheduleSpec):
    """Linear warmup, then cosine decay to a final rate.

    Formula:
        f(t) = (t + 1) / w                                   for t < w
        f(t) = r + (1 − r)·½·(1 + cos(π·(t − w) / (n − w)))    for w ≤ t ≤ n
        at step t of n, with w warmup steps and the final factor r

    Paper:
        https://arxiv.org/abs/1608.03983

    Notes:
        A run that is resumed with more steps follows the longer curve, so its rate increases abruptly. `constant`, and `wsd`
        before its decay, do not have this effect.
    """

    formula: ClassVar[str] = r"""
        f(t) = \frac{t + 1}{w} \qquad t < w
        f(t) = r + \frac{1 - r}{2} \left(1 + \cos\frac{\pi (t - w)}{n - w}\right) \qquad t \ge w
    """

    name: Literal["cosine"] = "cosine"
    warmup_steps: int = Field(0, ge=0, description="w: number of warmup steps.")
    final: float = Field(0.1, ge=0, le=1, description="r: the final rate relative to the peak rate.")

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))
