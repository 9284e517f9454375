"""Schedule `constant`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["ConstantSpec"]


class ConstantSpec(ScheduleSpec):
    """Constant peak rate after a linear warmup.

    Formula:
        f(t) = min(1, (t + 1) / w)    at step t with w warmup steps
    """

    formula: ClassVar[str] = r"f(t) = \min\left(1, \frac{t + 1}{w}\right)"

    name: Literal["constant"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="w: number of warmup steps.")

    def factor(self, step: int, steps: int) -> float:
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
