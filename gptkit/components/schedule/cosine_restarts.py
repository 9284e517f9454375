"""Schedule `cosine-restarts`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["CosineRestartsSpec"]


class CosineRestartsSpec(ScheduleSpec):
    """Linear warmup, then several cycles of cosine decay, each from the peak rate to a final rate.

    Formula:
        f(t) = (t + 1) / w                                  for t < w
        f(t) = r + (1 − r)·½·(1 + cos(π·(t − tᵢ) / lᵢ))       for tᵢ ≤ t < tᵢ + lᵢ
        at step t of n, with w warmup steps and the final factor r; cycle i of k begins at step tᵢ and has lᵢ steps, with
        t₁ = w, lᵢ₊₁ = growth·lᵢ, and l₁ + … + l_k = n − w

    Paper:
        https://arxiv.org/abs/1608.03983

    Notes:
        As with `cosine`, a run that is resumed with more steps follows the longer curve.
    """

    formula: ClassVar[str] = r"""
        f(t) = \frac{t + 1}{w} \qquad t < w
        f(t) = r + \frac{1 - r}{2} \left(1 + \cos\frac{\pi (t - t_i)}{l_i}\right) \qquad t_i \le t < t_i + l_i
        l_{i + 1} = \text{growth} \cdot l_i \qquad l_1 + \dots + l_k = n - w
    """

    name: Literal["cosine-restarts"] = "cosine-restarts"
    warmup_steps: int = Field(0, ge=0, description="w: number of warmup steps.")
    cycles: int = Field(3, ge=1, le=100, description="k: number of cycles.")
    growth: float = Field(1.0, ge=1, le=10, description="Length of a cycle relative to the previous one.")
    final: float = Field(0.0, ge=0, le=1, description="r: the final rate of each cycle relative to the peak rate.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"growth": 2.0, "warmup_steps": 50, "final": 0.1})

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = self._progress(step - self.warmup_steps, max(1, steps - self.warmup_steps))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))

    def _progress(self, passed: int, length: int) -> float:
        """Return the share of its cycle that has passed, given the steps that have passed of all cycles."""
        if passed >= length:
            return 1.0
        if self.growth == 1:
            return passed * self.cycles % length / length
        # Relative to the first cycle, i cycles have the length (growthⁱ - 1) / (growth - 1).
        share = passed / length * (self.growth**self.cycles - 1)
        # A step at which a cycle begins must not be the end of the previous one after rounding.
        cycle = min(self.cycles - 1, int(math.log1p(share) / math.log(self.growth) + 1e-9))
        start, end = self.growth**cycle - 1, self.growth ** (cycle + 1) - 1
        return min(1.0, max(0.0, (share - start) / (end - start)))
