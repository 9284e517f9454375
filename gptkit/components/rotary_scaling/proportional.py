"""`proportional` scaling of rotary positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ProportionalScalingSpec"]


class ProportionalScalingSpec(RotaryScalingSpec):
    """p-RoPE: only the pairs with the highest frequencies rotate; the others have the frequency zero.

    Formula:
        θ'_i = θ_i / factor for i < ⌊fraction · d_rotary / 2⌋, else 0

    Paper:
        https://arxiv.org/abs/2410.06205

    Notes:
        The field `fraction` of position `rotary` differs: it rotates the first features of a head, with frequencies down to
        the lowest. Here the frequencies are those of the whole head (Gemma 4).
    """

    formula: ClassVar[str] = r"\theta'_i = \begin{cases} \theta_i / f & i < p\,d/2 \\ 0 & \text{else} \end{cases}"

    name: Literal["proportional"] = "proportional"

    fraction: float = Field(0.25, gt=0, le=1, description="Share of the pairs that rotate.")
    factor: float = Field(1.0, ge=1, description="Divisor of the frequencies.")

    def n_pairs(self, d_rotary: int) -> int:
        """Return the number of pairs that rotate."""
        return int(self.fraction * d_rotary // 2)

    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        frequencies = self.plain(base, d_rotary) / self.factor
        frequencies[self.n_pairs(d_rotary) :] = 0
        return frequencies

    def written(self, context: WritingContext, *, base: float, d_rotary: int) -> Written:
        from gptkit.components.rotary_scaling.written.scaling import proportional

        return proportional(self, d_rotary)
