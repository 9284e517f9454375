"""`t5-bias` relative positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.position.modules.t5_bias import T5BiasPosition

__all__ = ["T5BiasSpec"]


class T5BiasSpec(PositionSpec):
    """Trainable bias per head and bucket of distances; buckets are wider for longer distances.

    Formula:
        score[h, t, s] += table[bucket(t - s), h]
        bucket(n) = n for n < k, else k + ⌊log(n / k) / log(max_distance / k) · k⌋, at most 2k - 1;  k = n_buckets / 2
    Shapes:
        bias (H, T, S); table (n_buckets, H)
    Paper:
        https://arxiv.org/abs/1910.10683
    Notes:
        T5 does not scale the dot products: set the attention's `scale: 1` to reproduce it.
    """

    formula: ClassVar[str] = r"""
        \text{score}_{h,t,s} \leftarrow \text{score}_{h,t,s} + \text{table}_{\beta(t-s),h}
        \beta(n) = \begin{cases} n & n < k \\
        k + \left\lfloor k \frac{\ln(n/k)}{\ln(m/k)} \right\rfloor & n \ge k \end{cases} \qquad
        k = \text{buckets} / 2 \qquad m = \text{max distance}
    """

    name: Literal["t5-bias"] = "t5-bias"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})
    score_function: ClassVar[bool] = True

    n_buckets: int = Field(32, ge=2, description="Number of distance buckets; half of them hold a single distance.")
    max_distance: int = Field(128, ge=2, description="Distance from which all distances share the last bucket.")
    shared: bool = Field(True, description="One table for all layers, as in T5, or one per layer.")

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if self.n_buckets % 2:
            yield Problem(
                ("n_buckets",), f"half of the buckets are exact, but {self.n_buckets} is odd; choose an even number"
            )
        if self.max_distance <= self.n_buckets // 2:
            yield Problem(
                ("max_distance",),
                f"max_distance {self.max_distance} must exceed the {self.n_buckets // 2} single-distance buckets",
            )

    def build(self, context: BuildContext, *, heads: HeadShape) -> T5BiasPosition:
        from gptkit.components.position.modules.t5_bias import T5BiasPosition

        if self.shared:
            return context.share(("t5-bias", self, heads.n_heads), lambda: T5BiasPosition(self, heads.n_heads))
        return T5BiasPosition(self, heads.n_heads)

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written:
        from gptkit.components.position.written.relative import t5_bias

        assert heads is not None
        return t5_bias(self, context, heads)
