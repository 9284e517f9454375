"""Sampler `temperature`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Temperature", "TemperatureSpec"]

_LOWEST = 1e-6
"""Below this, logits that a model can give may leave the range of fp32 when they are divided."""


class Temperature(Sampler):
    """The runtime part."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        return logits_BV / self.value


class TemperatureSpec(SamplerSpec):
    """Sharpens (below 1) or flattens (above 1) the distribution.

    Formula:
        logits[v] ← logits[v] / value

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://doi.org/10.1016/S0364-0213(85)80012-4
    """

    name: Literal["temperature"] = "temperature"
    value: float = Field(1.0, description="What logits are divided by; 1 changes nothing, lower is safer, higher is wilder.")

    @field_validator("value")
    @classmethod
    def _positive(cls, value: float) -> float:
        if value < 0:
            raise PydanticCustomError("temperature", "a temperature is a positive number, 0.8 say")
        if value < _LOWEST:
            raise PydanticCustomError(
                "temperature",
                "a temperature must be at least 0.000001; for the most likely token every time, use the sampler 'greedy'",
            )
        return value

    def build(self, context: SamplerContext) -> Temperature:
        return Temperature(self.value)
