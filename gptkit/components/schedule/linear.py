"""Schedule `linear`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["LinearSpec"]


class LinearSpec(ScheduleSpec):
    """Linear warmup, then linear decay to a final rate.

    Formula:
        f(t) = (t + 1) / w                            for t < w
        f(t) = 1 − (1 − r)·(t − w) / (n − w)           for w ≤ t ≤ n
        at step t of n, with w warmup steps and the final factor r

    Paper:
        https://arxiv.org/abs/2310.07831
    """

    formula: ClassVar[str] = r"""
        f(t) = \frac{t + 1}{w} \qquad t < w
        f(t) = 1 - (1 - r) \frac{t - w}{n - w} \qquad t \ge w
    """

    name: Literal["linear"] = "linear"
    warmup_steps: int = Field(0, ge=0, description="w: number of warmup steps.")
    final: float = Field(0.0, ge=0, le=1, description="r: the final rate relative to the peak rate.")

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        return 1 - (1 - self.final) * progress
