"""Callback `batch-warmup`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.callback import Callback, CallbackSpec, StepPlan

__all__ = ["BatchWarmup", "BatchWarmupSpec"]


class BatchWarmupSpec(CallbackSpec):
    """Linear warmup of the batch size to `training.batch_size`.

    Formula:
        b(t) = m · ⌊(b₀ + (B − b₀) · min(1, t / n)) / m⌋, at least m
        at step t, with the full batch size B, b₀ = initial, n = steps and m = multiple

    Paper:
        https://arxiv.org/abs/2005.14165

    Notes:
        A batch is rounded up to a multiple of gradient accumulation times processes, so that all parts are equal.
    """

    formula: ClassVar[str] = r"b(t) = m \left\lfloor \frac{b_0 + (B - b_0) \min(1, t / n)}{m} \right\rfloor"

    name: Literal["batch-warmup"] = "batch-warmup"
    initial: int = Field(1, ge=1, description="Number of data windows in the first batch.")
    steps: int = Field(100, ge=1, description="Number of warmup steps.")
    multiple: int = Field(1, ge=1, description="Batch sizes are multiples of this number.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"initial": 2, "steps": 4, "multiple": 2})

    @property
    def n_warmup_steps(self) -> int:
        return self.steps

    def build(self) -> Callback:
        return BatchWarmup(self)


class BatchWarmup(Callback):
    """Runtime part of `BatchWarmupSpec`."""

    def __init__(self, spec: BatchWarmupSpec) -> None:
        self.spec = spec

    def plan(self, step: int, plan: StepPlan) -> StepPlan:
        spec, full = self.spec, plan.batch_size
        first = min(spec.initial, full)
        if step >= spec.steps:
            return plan
        size = first + (full - first) * step // spec.steps
        return plan.replace(batch_size=min(full, max(spec.multiple, size // spec.multiple * spec.multiple)))
