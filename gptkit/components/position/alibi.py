"""`alibi` relative positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.position.modules.alibi import AlibiPosition

__all__ = ["AlibiSpec"]


class AlibiSpec(PositionSpec):
    """Attention with linear biases: scores decrease linearly with the distance, with a slope per head.

    Formula:
        score[h, t, s] -= m_h · (t - s),  m_h = 2^(-8 (h + 1) / n)  for n heads, n a power of 2
        other n: the slopes of the next lower power of 2, then every other slope of the next higher
    Shapes:
        bias (H, T, S)
    Paper:
        https://arxiv.org/abs/2108.12409
    """

    formula: ClassVar[str] = r"""
        \text{score}_{h,t,s} \leftarrow \text{score}_{h,t,s} - m_h (t - s) \qquad m_h = 2^{-8 (h + 1) / n}
    """

    name: Literal["alibi"] = "alibi"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})
    score_function: ClassVar[bool] = True

    slope_order: Literal["appended", "strided"] = Field(
        "appended",
        description="Slopes for head counts that are not a power of 2: as in the paper's code, or as in MPT.",
    )
    max_exponent: float = Field(8.0, gt=0, description="Negative base-2 logarithm of the last head's slope.")
    scaled: bool = Field(False, description="Divide the bias by √d_head, as the dot products are (Falcon-RW).")
    rounded: bool = Field(
        False, description="Round slopes, and slopes times key positions, to bfloat16, as Falcon-RW was trained."
    )

    def build(self, context: BuildContext, *, heads: HeadShape) -> AlibiPosition:
        from gptkit.components.position.modules.alibi import AlibiPosition

        return context.share(("alibi", self, heads), lambda: AlibiPosition(self, heads))

    def slopes(self, n_heads: int) -> list[float]:
        """Return m_h for each head."""

        def geometric(count: int) -> list[float]:
            return [2.0 ** (-self.max_exponent * (h + 1) / count) for h in range(count)]

        lower = 2 ** math.floor(math.log2(n_heads))
        if lower == n_heads:
            return geometric(n_heads)
        doubled = geometric(2 * lower)
        if self.slope_order == "strided":
            return (doubled[1::2] + doubled[0::2])[:n_heads]
        return geometric(lower) + doubled[0::2][: n_heads - lower]

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written:
        from gptkit.components.position.written.bias import alibi

        assert heads is not None
        return alibi(self, heads)
