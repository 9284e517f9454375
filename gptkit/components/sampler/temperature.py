"""Sampler `temperature`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOWEST", "Temperature", "TemperatureSpec"]

LOWEST = 1e-6
"""Below this temperature, the quotients of usual logits may exceed the range of fp32."""


class Temperature(Sampler):
    """Runtime part of `TemperatureSpec`."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        return logits_BV / self.value


class TemperatureSpec(SamplerSpec):
    """Divide the logits by a temperature: below 1 sharpens the distribution, above 1 flattens it.

    Formula:
        logits[v] ← logits[v] / value

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://doi.org/10.1016/S0364-0213(85)80012-4
    """

    formula: ClassVar[str] = r"z_v \leftarrow \frac{z_v}{T}"

    anonymous: ClassVar[bool] = True

    name: Literal["temperature"] = "temperature"
    value: float = Field(1.0, description="Divisor of the logits; 1 has no effect, higher values increase diversity.")

    @field_validator("value")
    @classmethod
    def _positive(cls, value: float) -> float:
        if value < 0:
            raise PydanticCustomError("temperature", "a temperature must be positive; use 0.8, for example")
        if value < LOWEST:
            raise PydanticCustomError(
                "temperature",
                "a temperature must be at least 0.000001; to select the most likely token, use the sampler 'greedy'",
            )
        return value

    def build(self, context: SamplerContext) -> Temperature:
        return Temperature(self.value)
