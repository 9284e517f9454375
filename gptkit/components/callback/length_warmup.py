"""Callback `length-warmup`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.callback import Callback, CallbackSpec, StepPlan

__all__ = ["LengthWarmup", "LengthWarmupSpec"]


class LengthWarmupSpec(CallbackSpec):
    """Linear warmup of the length of training sequences to the full data window.

    Formula:
        l(t) = m · ⌊(l₀ + (L − l₀) · min(1, t / n)) / m⌋, at least m
        at step t, with data windows of L tokens, l₀ = initial, n = steps and m = multiple

    Paper:
        https://arxiv.org/abs/2108.06084

    Notes:
        Data windows are truncated at the end: the choice of data windows does not depend on the length.
    """

    formula: ClassVar[str] = r"l(t) = m \left\lfloor \frac{l_0 + (L - l_0) \min(1, t / n)}{m} \right\rfloor"

    name: Literal["length-warmup"] = "length-warmup"
    initial: int = Field(64, ge=1, description="Number of tokens of the first sequences.")
    steps: int = Field(100, ge=1, description="Number of warmup steps.")
    multiple: int = Field(8, ge=1, description="Lengths are multiples of this number.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"initial": 2, "steps": 4, "multiple": 1})

    @property
    def n_warmup_steps(self) -> int:
        return self.steps

    def build(self) -> Callback:
        return LengthWarmup(self)


class LengthWarmup(Callback):
    """Runtime part of `LengthWarmupSpec`."""

    def __init__(self, spec: LengthWarmupSpec) -> None:
        self.spec = spec

    def plan(self, step: int, plan: StepPlan) -> StepPlan:
        spec, full = self.spec, plan.length
        first = min(spec.initial, full)
        if step >= spec.steps:
            return plan
        length = first + (full - first) * step // spec.steps
        return plan.replace(length=min(full, max(spec.multiple, length // spec.multiple * spec.multiple)))
