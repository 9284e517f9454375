"""Block with a learned augmented residual connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["LaurelSpec"]


class LaurelSpec(BlockSpec):
    """Learned augmented residual layer (LAuReL): beside attention, a low-rank map of the input is added (Gemma 3n).

    Formula:
        a = norm(x)
        x ← (x + dropout(norm(attention(a))) + a + norm(W_right W_left a)) / √2
        x ← x + dropout(norm(feedforward(norm(x))))

    Shapes:
        (B, T, d_model) → (B, T, d_model); W_left (rank, d_model), W_right (d_model, rank)

    Paper:
        https://arxiv.org/abs/2411.07501

    Notes:
        The norms are those of block `sandwich`. The form is that of Gemma 3n, whose low-rank map has the normalized input.
    """

    formula: ClassVar[str] = r"""
        a = \operatorname{norm}(x) \qquad \ell = a + \operatorname{norm}(W_{\text{right}} W_{\text{left}}\, a)
        x \leftarrow \frac{1}{\sqrt{2}} \left(x + \operatorname{norm}(\operatorname{attention}(a)) + \ell\right)
        x \leftarrow x + \operatorname{norm}(\operatorname{feedforward}(\operatorname{norm}(x)))
    """

    name: Literal["laurel"] = "laurel"
    rank: int = Field(64, ge=1, description="Rank of the map of the input.")
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"rank": 5})

    @property
    def wiring(self) -> tuple[Step, ...]:
        branches = (("attention", "norm"), ("low-rank map", "norm"), ())
        return (Step(branches, before=("norm",), scaled="× 1/√2"), Step((("norm", "feedforward", "norm"),)))

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.laurel import Laurel

        return Laurel(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.laurel import laurel

        return laurel(self, context)
