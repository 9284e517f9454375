"""Schedule `wsd`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["WSDSpec"]


class WSDSpec(ScheduleSpec):
    """Warmup, stable, decay: linear warmup, the peak rate for most of the training, and decay at its end.

    Formula:
        f(t) = (t + 1) / w                      for t < w
        f(t) = 1                                for w ≤ t < n − d
        f(t) = 1 − (1 − r)·shape((t − (n − d)) / d)    for n − d ≤ t ≤ n, with d = decay·n
        shape(x) = x (linear), √x (sqrt), ½·(1 − cos(π·x)) (cosine) or (1 − rˣ) / (1 − r), for which f(t) = rˣ (exponential)

    Paper:
        https://arxiv.org/abs/2404.06395, https://arxiv.org/abs/2405.18392 (sqrt)

    Notes:
        The rate before the decay does not depend on the number of steps, so a checkpoint from the stable phase can be
        resumed with more steps and gives the result of the longer training.
    """

    formula: ClassVar[str] = r"""
        f(t) = \begin{cases} (t + 1) / w & t < w \\ 1 & w \le t < n - d \\
        1 - (1 - r)\, s(x) & t \ge n - d \end{cases}
        x = \frac{t - (n - d)}{d} \qquad d = \text{decay} \cdot n
    """

    name: Literal["wsd"] = "wsd"
    warmup_steps: int = Field(0, ge=0, description="w: number of warmup steps.")
    decay: float = Field(0.2, ge=0, le=1, description="Fraction of all steps in which the rate decays.")
    shape: Literal["linear", "sqrt", "cosine", "exponential"] = Field(
        "sqrt", description="Shape of the decay; exponential requires a final rate above 0."
    )
    final: float = Field(0.0, ge=0, le=1, description="r: the final rate relative to the peak rate.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"shape": "linear"}, {"shape": "exponential", "final": 0.01})

    def problems(self, context: Any) -> Iterator[Problem]:
        if self.shape == "exponential" and self.final == 0:
            yield Problem(("shape",), "exponential decay never reaches a final rate of 0; set final: 0.01, or another shape")

    def factor(self, step: int, steps: int) -> float:
        rising = (step + 1) / self.warmup_steps if step < self.warmup_steps else 1.0
        length = self.decay * steps
        passed = step - (steps - length)
        if length == 0 or passed <= 0:
            return rising
        x = min(1.0, passed / length)
        if self.shape == "exponential":
            return rising * float(self.final**x)
        fallen = {"linear": x, "sqrt": math.sqrt(x), "cosine": 0.5 * (1 - math.cos(math.pi * x))}[self.shape]
        return rising * (1 - (1 - self.final) * fallen)
