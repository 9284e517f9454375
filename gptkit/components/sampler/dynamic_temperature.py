"""Sampler `dynamic-temperature`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.temperature import LOWEST
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DynamicTemperature", "DynamicTemperatureSpec"]


class DynamicTemperature(Sampler):
    """Runtime part of `DynamicTemperatureSpec`."""

    def __init__(self, low: float, high: float, exponent: float) -> None:
        self.low, self.high, self.exponent = low, high, exponent

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        n_B1 = (logits_BV > -math.inf).sum(dim=-1, keepdim=True)
        log_p_BV = logits_BV.log_softmax(dim=-1)
        p_BV = log_p_BV.exp()
        entropy_B1 = -(p_BV * log_p_BV).where(p_BV > 0, 0).sum(dim=-1, keepdim=True)
        share_B1 = entropy_B1.clamp_min(0) / n_B1.clamp_min(2).log()
        temperature_B1 = self.low + (self.high - self.low) * share_B1**self.exponent
        return (logits_BV / temperature_B1.clamp_min(LOWEST)).where(n_B1 > 1, logits_BV)


class DynamicTemperatureSpec(SamplerSpec):
    """Temperature that depends on the entropy: low where the model is certain, high where many tokens are likely.

    Formula:
        h = H / ln n,  H = −Σ P ln P,  P = softmax(logits),  n the number of tokens that are not excluded
        T = low + (high − low) · h^exponent,  low = max(0, value − range),  high = value + range
        logits[v] ← logits[v] / T

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://github.com/ggml-org/llama.cpp/pull/4972

    Notes:
        Unchanged with a single token. The entropy depends on the samplers before it; llama.cpp applies it last.
    """

    formula: ClassVar[str] = r"""
        h = \frac{H}{\ln n} \qquad H = -\sum_v P_v \ln P_v
        T = T_{\text{low}} + (T_{\text{high}} - T_{\text{low}})\, h^e \qquad z_v \leftarrow \frac{z_v}{T}
    """

    anonymous: ClassVar[bool] = True

    name: Literal["dynamic-temperature"] = "dynamic-temperature"
    value: float = Field(1.0, ge=LOWEST, le=100, description="Center of the range of temperatures.")
    range: float = Field(0.5, ge=0, le=100, description="Largest difference from the center; 0 is a fixed temperature.")
    exponent: float = Field(1.0, ge=0.01, le=100, description="Exponent of the entropy: above 1 lowers the temperature.")

    def build(self, context: SamplerContext) -> DynamicTemperature:
        return DynamicTemperature(max(0.0, self.value - self.range), self.value + self.range, self.exponent)
