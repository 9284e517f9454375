"""`dynamic` scaling of rotary positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DynamicScalingSpec"]


class DynamicScalingSpec(RotaryScalingSpec):
    """Dynamic NTK scaling: the base grows with the length of the text beyond the trained length.

    Formula:
        base' = base · (factor · L / L₀ - (factor - 1))^(d_rotary / (d_rotary - 2))  for a text of L > L₀ tokens
    Paper:
        https://arxiv.org/abs/2309.00071
    Notes:
        Beyond the trained length every new token changes the rotation of all earlier ones, so each step recomputes the
        cache.
    """

    formula: ClassVar[str] = r"b' = b \left(f \frac{L}{L_0} - (f - 1)\right)^{d / (d - 2)} \qquad L > L_0"

    name: Literal["dynamic"] = "dynamic"
    depends_on_length: ClassVar[bool] = True

    factor: float = Field(2.0, ge=1, description="Factor in the growth of the base.")
    original_context_length: int | None = Field(
        None, ge=1, description="L₀, the trained length in tokens; the model's context length by default."
    )

    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        return self.plain(base, d_rotary)

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        return max(old, new) > (self.original_context_length or context.context_length) and old != new

    def at_length(self, base: float, d_rotary: int, context: BuildContext, length_B: Tensor) -> Tensor:
        import torch

        trained = self.original_context_length or context.context_length
        ratio_B = length_B.float().clamp(min=float(trained)) / trained
        # With two rotated features the only frequency is 1, for every base.
        power = d_rotary / (d_rotary - 2) if d_rotary > 2 else 1.0
        base_B = base * (self.factor * ratio_B - (self.factor - 1)) ** power
        exponents = torch.arange(0, d_rotary, 2, device=length_B.device).float() / d_rotary
        return 1.0 / (base_B[:, None] ** exponents)

    def written(self, context: WritingContext, *, base: float, d_rotary: int) -> Written:
        from gptkit.components.rotary_scaling.written.scaling import dynamic

        return dynamic(self, context, d_rotary)
