"""Schedule `wsd`."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from gptkit.kinds.optimizer import ScheduleSpec

__all__ = ["WSDSpec"]


class WSDSpec(ScheduleSpec):
    """Warmup, stable, decay: rises, stays at the peak for most of the training, and falls at its end.

    Formula:
        f(t) = (t + 1) / w                      for t < w
        f(t) = 1                                for w ≤ t < n − d
        f(t) = 1 − (1 − r)·shape((t − (n − d)) / d)    for n − d ≤ t ≤ n, with d = decay·n
        shape(x) = x (linear), √x (sqrt) or ½·(1 − cos(π·x)) (cosine)

    Paper:
        https://arxiv.org/abs/2404.06395

    Notes:
        The rate before the decay does not depend on how long the training is, so a checkpoint from there can be resumed
        with more steps and gives what the longer training would have given.
    """

    name: Literal["wsd"] = "wsd"
    warmup_steps: int = Field(0, ge=0, description="w: steps over which the rate rises to its peak.")
    decay: float = Field(0.2, ge=0, le=1, description="The share of all steps over which the rate falls.")
    shape: Literal["linear", "sqrt", "cosine"] = Field("sqrt", description="How it falls.")
    final: float = Field(0.0, ge=0, le=1, description="r: the share of the peak rate at the end.")

    def factor(self, step: int, steps: int) -> float:
        rising = (step + 1) / self.warmup_steps if step < self.warmup_steps else 1.0
        length = self.decay * steps
        passed = step - (steps - length)
        if length == 0 or passed <= 0:
            return rising
        x = min(1.0, passed / length)
        fallen = {"linear": x, "sqrt": math.sqrt(x), "cosine": 0.5 * (1 - math.cos(math.pi * x))}[self.shape]
        return rising * (1 - (1 - self.final) * fallen)
