"""`shaw` relative positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.position.modules.shaw import ShawPosition

__all__ = ["ShawSpec"]


class ShawSpec(PositionSpec):
    """Relative position representations: a trainable vector for each distance, added to keys and values.

    Formula:
        score[t, s] = q_t · (k_s + a^K[t - s]) / √d_head
        y_t = Σ_s weight[t, s] (v_s + a^V[t - s]),  distances clipped to max_distance
    Shapes:
        a^K, a^V (max_distance + 1, d_head), shared by the heads
    Paper:
        https://arxiv.org/abs/1803.02155
    """

    formula: ClassVar[str] = r"""
        \text{score}_{t,s} = \frac{q_t \cdot (k_s + a^K_{t-s})}{\sqrt{d}}
        y_t = \sum_s w_{t,s} (v_s + a^V_{t-s})
    """

    name: Literal["shaw"] = "shaw"

    max_distance: int = Field(16, ge=1, description="Largest distance with its own vector; longer distances share it.")
    values: bool = Field(True, description="Add vectors to the values too; without this, fused attention can be used.")

    uses: ClassVar[frozenset[str]] = frozenset({"content_bias", "value_bias"})

    def build(self, context: BuildContext, *, heads: HeadShape) -> ShawPosition:
        from gptkit.components.position.modules.shaw import ShawPosition

        return ShawPosition(self, heads.d_head)

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written:
        from gptkit.components.position.written.relative import shaw

        assert heads is not None
        return shaw(self, heads)
