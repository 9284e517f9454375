"""`query-temperature`: attention that becomes sharper with the length of the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.position.modules.query_temperature import QueryTemperature

__all__ = ["QueryTemperatureSpec"]


class QueryTemperatureSpec(PositionSpec):
    """Scale queries by a function of their position, so that attention remains sharp over many tokens.

    Formula:
        q_t ← q_t · (1 + strength · ln(1 + ⌊(t + 1) / interval⌋)),  t from 0
        With `growth: power`: q_t ← q_t · (1 + (t + 1) / interval) ^ strength
        With `growth: smooth`: q_t ← q_t · (1 + strength · ln(max(1, (t + 1) / interval)))

    Shapes:
        q (B, n_heads, T, d_head) → the same; keys are not changed

    Paper:
        https://arxiv.org/abs/2501.19399

    Notes:
        For layers without any other position (Llama 4; Beam, with `growth: power`; Inkling, with `growth: smooth`).
    """

    formula: ClassVar[str] = r"""
        q_t \leftarrow q_t \cdot \left(1 + \alpha \ln\left(1 + \left\lfloor \frac{t + 1}{n} \right\rfloor\right)\right)
        \alpha = \text{strength} \qquad n = \text{interval}
    """

    name: Literal["query-temperature"] = "query-temperature"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})
    depends_on_position: ClassVar[bool] = True

    growth: Literal["logarithm", "power", "smooth"] = Field(
        "logarithm",
        description="How queries grow: in steps with the logarithm of the position, with a power of it, or with its "
        "logarithm without steps, from the interval on.",
    )
    strength: float = Field(0.1, gt=0, description="Factor of the logarithm, or the exponent.")
    interval: int = Field(8192, ge=1, description="Tokens after which the scale rises by a step, the first one included.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"strength": 0.5, "interval": 4},
        {"growth": "power", "strength": 0.5, "interval": 4},
        {"growth": "smooth", "strength": 0.5, "interval": 4},
    )

    def build(self, context: BuildContext, *, heads: HeadShape) -> QueryTemperature:
        from gptkit.components.position.modules.query_temperature import QueryTemperature

        return context.share(("query-temperature", self), lambda: QueryTemperature(self))

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written:
        from gptkit.components.position.written.bias import query_temperature

        return query_temperature(self)
