"""`llama3` scaling of rotary positions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Llama3ScalingSpec"]


class Llama3ScalingSpec(RotaryScalingSpec):
    """Scaling of Llama 3.1: high frequencies are kept, low ones divided by a factor, those in between interpolated.

    Formula:
        λ_i = 2π / θ_i;  s_i = clamp((L₀ / λ_i - low) / (high - low), 0, 1)
        θ'_i = (1 - s_i) · θ_i / factor + s_i · θ_i
        If low = high (Llama 4), nothing is interpolated: s_i is 1 if L₀ / λ_i ≥ low, else 0.
    Paper:
        https://arxiv.org/abs/2407.21783
    """

    formula: ClassVar[str] = r"""
        s_i = \operatorname{clamp}\left(\frac{L_0 \theta_i / 2\pi - \text{low}}{\text{high} - \text{low}}, 0, 1\right)
        \theta'_i = (1 - s_i) \frac{\theta_i}{f} + s_i \theta_i
    """

    name: Literal["llama3"] = "llama3"

    factor: float = Field(8.0, ge=1, description="Divisor of the low frequencies.")
    low_frequency_factor: float = Field(1.0, gt=0, description="Pairs with fewer rotations than this in L₀ are divided.")
    high_frequency_factor: float = Field(4.0, gt=0, description="Pairs with more rotations than this in L₀ are kept.")
    original_context_length: int = Field(8192, ge=1, description="L₀, the trained length in tokens.")

    def problems(self, context: Any) -> Iterator[Problem]:
        if self.high_frequency_factor < self.low_frequency_factor:
            yield Problem(("high_frequency_factor",), "must not be below low_frequency_factor")

    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        plain = self.plain(base, d_rotary)
        turns = self.original_context_length * plain / (2 * math.pi)
        span = self.high_frequency_factor - self.low_frequency_factor
        beyond = turns - self.low_frequency_factor
        kept = (beyond / span).clamp(0, 1) if span else (beyond >= 0).to(beyond.dtype)
        return (1 - kept) * plain / self.factor + kept * plain

    def written(self, context: WritingContext, *, base: float, d_rotary: int) -> Written:
        from gptkit.components.rotary_scaling.written.scaling import llama3

        return llama3(self)
