"""Schedule `polynomial`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["PolynomialSpec"]


class PolynomialSpec(ScheduleSpec):
    """Linear warmup, then polynomial decay to a final rate.

    Formula:
        f(t) = (t + 1) / w                                  for t < w
        f(t) = r + (1 − r)·(1 − (t − w) / (n − w))ᵖ          for w ≤ t ≤ n
        at step t of n, with w warmup steps, the final factor r and the power p

    Paper:
        https://arxiv.org/abs/1606.00915

    Notes:
        Power 1 is schedule `linear`. As with `cosine`, a run that is resumed with more steps follows the longer curve.
    """

    formula: ClassVar[str] = r"""
        f(t) = \frac{t + 1}{w} \qquad t < w
        f(t) = r + (1 - r) \left(1 - \frac{t - w}{n - w}\right)^p \qquad t \ge w
    """

    name: Literal["polynomial"] = "polynomial"
    warmup_steps: int = Field(0, ge=0, description="w: number of warmup steps.")
    power: float = Field(2.0, gt=0, description="p: the power; above 1 the rate falls faster at first.")
    final: float = Field(0.0, ge=0, le=1, description="r: the final rate relative to the peak rate.")

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        return self.final + (1 - self.final) * float((1 - progress) ** self.power)
