"""Block with one branch: attention or feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["SingleBranchSpec"]


class SingleBranchSpec(BlockSpec):
    """Normalize, transform by attention or by the feed-forward, add: a layer with one branch (Nemotron-H).

    Formula:
        x ← x + residual_scale · dropout(branch(norm(x))); without `shortcut`, x ← residual_scale · dropout(branch(norm(x)))

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/2504.03624

    Notes:
        The layer's other part is neither built nor used. A pattern of layers may thus have attentions and feed-forwards in
        any order and number; two such layers, attention first, are one `pre-norm` layer.
    """

    formula: ClassVar[str] = r"x \leftarrow x + \operatorname{branch}(\operatorname{norm}(x))"

    name: Literal["single-branch"] = "single-branch"
    branch: Literal["attention", "feedforward"] = Field("attention", description="The part that the layer consists of.")
    dropout: float = Field(0.0, description="Share of the branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="Factor of the branch before it is added.")
    shortcut: bool = Field(
        True, description="Add the branch to its input; without it the branch replaces the input (the head of ModernBERT)."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"branch": "feedforward", "residual_scale": 0.5},
        {"branch": "feedforward", "shortcut": False},
    )

    @property
    def wiring(self) -> tuple[Step, ...]:
        return (Step((("norm", self.branch),), shortcut=self.shortcut, factor="residual_scale"),)

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.single_branch import SingleBranch

        return SingleBranch(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.forms import single_branch

        return single_branch(self, context)
