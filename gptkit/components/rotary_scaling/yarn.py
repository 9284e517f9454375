"""`yarn` scaling of rotary positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["YarnScalingSpec"]


class YarnScalingSpec(RotaryScalingSpec):
    """YaRN: high frequencies are kept, low ones interpolated, with a ramp in between, and scores are scaled up.

    Formula:
        i(r) = d_rotary · ln(L₀ / 2πr) / (2 ln base), the pair with r rotations in the trained length L₀
        γ_i = clamp((i - i(beta_fast)) / (i(beta_slow) - i(beta_fast)), 0, 1)
        θ'_i = θ_i · (1 - γ_i) + θ_i / factor · γ_i;  sine and cosine times 0.1 · ln(factor) + 1
    Paper:
        https://arxiv.org/abs/2309.00071
    """

    formula: ClassVar[str] = r"""
        i(r) = d \frac{\ln(L_0 / 2\pi r)}{2 \ln b}
        \gamma_i = \operatorname{clamp}\left(\frac{i - i(\beta_f)}{i(\beta_s) - i(\beta_f)}, 0, 1\right)
        \theta'_i = (1 - \gamma_i) \theta_i + \gamma_i \frac{\theta_i}{f} \qquad
        \text{amplitude} = 0.1 \ln f + 1
    """

    name: Literal["yarn"] = "yarn"

    factor: float = Field(2.0, ge=1, description="Length of the texts relative to those in training.")
    original_context_length: int | None = Field(
        None, ge=1, description="L₀, the trained length in tokens; the model's context length / factor by default."
    )
    beta_fast: float = Field(32.0, gt=0, description="Pairs with more rotations than this in L₀ are kept.")
    beta_slow: float = Field(1.0, gt=0, description="Pairs with fewer rotations than this in L₀ are fully interpolated.")
    truncate: bool = Field(True, description="Round the ends of the ramp outward to integer pairs.")
    attention_factor: float | None = Field(
        None, gt=0, description="Factor of sine and cosine; 0.1 · ln(factor) + 1 by default."
    )

    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        import torch

        low, high = self.ramp(base, d_rotary, context)
        width = high - low or 0.001
        ramp = torch.clamp((torch.arange(d_rotary // 2, dtype=torch.float32) - low) / width, 0, 1)
        plain = self.plain(base, d_rotary)
        return plain / self.factor * ramp + plain * (1 - ramp)

    def ramp(self, base: float, d_rotary: int, context: BuildContext) -> tuple[float, float]:
        """Return the pairs at which the interpolation begins and ends."""
        trained = self.original_context_length or context.context_length / self.factor

        def pair_turning(times: float) -> float:
            return d_rotary * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(base))

        low, high = pair_turning(self.beta_fast), pair_turning(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        return max(low, 0), min(high, d_rotary - 1)

    def amplitude(self, context: BuildContext) -> float:
        return self.attention_factor or 0.1 * math.log(self.factor) + 1.0

    def written(self, context: WritingContext, *, base: float, d_rotary: int) -> Written:
        from gptkit.components.rotary_scaling.written.scaling import yarn

        return yarn(self, context, base, d_rotary)
