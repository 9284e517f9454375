"""`hybrid`: attention and a recurrence side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.registry import default_registry
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.hybrid import Hybrid

__all__ = ["HybridSpec"]


class HybridSpec(AttentionSpec):
    """Attention and a recurrence on the same input, whose outputs are added (Falcon-H1).

    Formula:
        y = attention_scale · attention(attention_input_scale · x)
            + recurrence_scale · recurrence(recurrence_input_scale · x)

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        states: those of both

    Paper:
        https://arxiv.org/abs/2507.22448

    Notes:
        The relative position of the layer is that of `attention`; `recurrence` has none. Each of the two may be any
        attention: two recurrences, or two attentions, are possible too.
    """

    formula: ClassVar[str] = r"y = c_1 \operatorname{attention}(x) + c_2 \operatorname{recurrence}(x)"

    name: Literal["hybrid"] = "hybrid"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias", "value_bias"})

    attention: AttentionSpec = component("grouped-query", description="Attention, with the relative position of the layer.")
    recurrence: AttentionSpec = component("mamba2", description="Recurrence, without a relative position.")
    attention_scale: float = Field(1.0, description="Factor of the attention's output.")
    attention_input_scale: float = Field(1.0, description="Factor of the attention's input.")
    recurrence_scale: float = Field(1.0, description="Factor of the recurrence's output.")
    recurrence_input_scale: float = Field(1.0, description="Factor of the recurrence's input.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {
            "attention": {"name": "grouped-query", "n_heads": 2, "d_head": 8},
            "recurrence": {"name": "mamba2", "n_heads": 2, "d_head": 8, "d_state": 6},
        },
        {
            "attention": {"name": "multi-head", "n_heads": 2, "d_head": 8},
            "recurrence": {"name": "lightning", "n_heads": 3, "d_head": 6},
            "attention_scale": 0.5,
            "attention_input_scale": 1.25,
            "recurrence_scale": 1.5,
            "recurrence_input_scale": 0.75,
        },
    )

    @property
    def depends_on_position(self) -> bool:
        return self.attention.depends_on_position or self.recurrence.depends_on_position

    def inner_context(self, field: str, context: Any) -> Any:
        if field != "recurrence":
            return context
        registry = context.registry or default_registry()
        position = registry.component("position", "none")(name="none")
        return context.replace(layer=dataclasses.replace(context.parts, position=position))

    def score_features(self, context: BuildContext) -> ScoreFeatures | None:
        return self.attention.score_features(context)

    def build(self, context: BuildContext) -> Hybrid:
        from gptkit.components.attention.modules.hybrid import Hybrid

        return Hybrid(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.hybrid import hybrid

        return hybrid(self, context)
