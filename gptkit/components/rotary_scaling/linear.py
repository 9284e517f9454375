"""`linear` scaling of rotary positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LinearScalingSpec"]


class LinearScalingSpec(RotaryScalingSpec):
    """Position interpolation: every frequency is divided by one factor.

    Formula:
        θ_i = base^(-2i / d_rotary) / factor
    Paper:
        https://arxiv.org/abs/2306.15595
    """

    formula: ClassVar[str] = r"\theta'_i = \frac{b^{-2i/d}}{f} \qquad f = \text{factor}"

    name: Literal["linear"] = "linear"

    factor: float = Field(2.0, ge=1, description="Length of the texts relative to those in training.")

    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        return self.plain(base, d_rotary) / self.factor

    def written(self, context: WritingContext, *, base: float, d_rotary: int) -> Written:
        return Written(calls={"scale": f"$frequencies / {self.factor!r}"}, fields=["factor"])
