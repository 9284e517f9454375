"""Block with norms before and after each branch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["SandwichSpec", "output_scaling"]


class SandwichSpec(BlockSpec):
    """Normalize the input and the output of each branch (Gemma 2 to 4, GLM-4).

    Formula:
        x ← x + residual_scale · dropout(norm(attention(norm(x))))
        x ← x + residual_scale · dropout(norm(feedforward(norm(x))))
        Without `feedforward_input_norm`: x ← x + residual_scale · dropout(norm(feedforward(x)))
        With `depth_scaled`, layer l from 0: x ← √((i−1)/i) · x + residual_scale · √(1/i) · dropout(…), where i is 2l + 2
        for the attention, and 2l + 3 for the feed-forward
        With `output_scale`: x ← s · x

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/2408.00118

    Notes:
        With `depth_scaled`, the stream after i terms, of which the embedding is the first, is their sum divided by √i: all
        terms have the same share, and the size of the stream does not grow with the depth (Beam).
    """

    formula: ClassVar[str] = r"""
        x \leftarrow x + \operatorname{norm}(\operatorname{attention}(\operatorname{norm}(x)))
        x \leftarrow x + \operatorname{norm}(\operatorname{feedforward}(\operatorname{norm}(x)))
    """

    name: Literal["sandwich"] = "sandwich"
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="Factor of each branch before it is added (Granite: 0.22).")
    feedforward_input_norm: bool = Field(
        True,
        description="Whether the feed-forward's input is normalized; false for one whose parts have norms of their own, as "
        "the experts of Gemma 4.",
    )
    depth_scaled: bool = Field(
        False,
        description="Weight branch and residual by the number of terms in the stream, so that each has the same share.",
    )
    output_scale: Literal["fixed", "learned"] | None = Field(
        None,
        description="Multiply the block's output by a number, initially 1: `learned` in training, or `fixed` (imported "
        "weights may have another value, as those of Gemma 4). None by default.",
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"output_scale": "learned", "residual_scale": 0.5},
        {"feedforward_input_norm": False},
        {"depth_scaled": True, "residual_scale": 0.5},
    )

    @property
    def wiring(self) -> tuple[Step, ...]:
        fed = ("norm", "feedforward", "norm") if self.feedforward_input_norm else ("feedforward", "norm")
        scaled = output_scaling(self.output_scale)
        weighted = "√(1/i) · sum of i terms" if self.depth_scaled else ""
        return (
            Step((("norm", "attention", "norm"),), factor="residual_scale", scaled=weighted),
            Step((fed,), factor="residual_scale", scaled=" ".join(filter(None, (weighted, scaled)))),
        )

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.sandwich import Sandwich

        return Sandwich(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.forms import sandwich

        return sandwich(self, context)


def output_scaling(output_scale: str | None) -> str:
    """Return what a block's output is multiplied by, in words for diagrams."""
    return "" if output_scale is None else f"× a {output_scale} number"
