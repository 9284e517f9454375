"""`longrope` scaling of rotary positions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LongRopeScalingSpec"]


class LongRopeScalingSpec(RotaryScalingSpec):
    """LongRoPE: optimized divisors of each pair, one set for texts within the trained length and one for longer ones.

    Formula:
        θ'_i = θ_i / short_i for texts of up to L₀ tokens, else θ_i / long_i
        sine and cosine times √(1 + ln(factor) / ln(L₀))
    Paper:
        https://arxiv.org/abs/2402.13753
    Notes:
        When a text grows beyond L₀, the cache is recomputed with the long divisors.
    """

    formula: ClassVar[str] = r"""
        \theta'_i = \begin{cases} \theta_i / \text{short}_i & L \le L_0 \\
        \theta_i / \text{long}_i & L > L_0 \end{cases}
        \text{amplitude} = \sqrt{1 + \frac{\ln f}{\ln L_0}}
    """

    name: Literal["longrope"] = "longrope"
    depends_on_length: ClassVar[bool] = True

    short: tuple[float, ...] = Field(
        (1.0,), description="Divisors for texts of up to L₀ tokens; one per pair, or one for all."
    )
    long: tuple[float, ...] = Field((2.0,), description="Divisors for longer texts; one per pair, or one for all.")
    factor: float | None = Field(
        None, ge=1, description="Length of the texts relative to L₀; the context length / L₀ by default."
    )
    original_context_length: int | None = Field(
        None, ge=2, description="L₀, the trained length in tokens; the model's context length by default."
    )
    attention_factor: float | None = Field(
        None, gt=0, description="Factor of sine and cosine; √(1 + ln(factor) / ln(L₀)) by default."
    )

    def _trained(self, context: BuildContext) -> int:
        return self.original_context_length or context.context_length

    def pair_problems(self, d_rotary: int) -> Iterator[str]:
        for field, divisors in (("short", self.short), ("long", self.long)):
            if len(divisors) not in (1, d_rotary // 2):
                yield f"scaling.{field} has {len(divisors)} divisors, for {d_rotary // 2} feature pairs; set one per pair"

    def _divide(self, base: float, d_rotary: int, divisors: tuple[float, ...]) -> Tensor:
        import torch

        return self.plain(base, d_rotary) / torch.tensor(divisors)

    def frequencies(self, base: float, d_rotary: int, context: BuildContext) -> Tensor:
        return self._divide(base, d_rotary, self.short)

    def changes_between(self, old: int, new: int, context: BuildContext) -> bool:
        return (old > self._trained(context)) != (new > self._trained(context))

    def at_length(self, base: float, d_rotary: int, context: BuildContext, length_B: Tensor) -> Tensor:
        short = self._divide(base, d_rotary, self.short).to(length_B.device)
        long = self._divide(base, d_rotary, self.long).to(length_B.device)
        return long.where(length_B[:, None] > self._trained(context), short)

    def amplitude(self, context: BuildContext) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        trained = self._trained(context)
        factor = self.factor or max(1.0, context.context_length / trained)
        return math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0

    def written(self, context: WritingContext, *, base: float, d_rotary: int) -> Written:
        from gptkit.components.rotary_scaling.written.scaling import longrope

        return longrope(self, context)
