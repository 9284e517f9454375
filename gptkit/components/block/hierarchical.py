"""Block of two stacks of blocks in nested cycles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.block.per_layer_embedding import LayerEmbeddingFields
from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.core.walk import components
from gptkit.kinds.block import BlockSpec, Step, Within
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["HierarchicalSpec"]


class HierarchicalSpec(BlockSpec):
    """Two stacks of blocks in nested cycles, each applied several times with the same weights (HRM).

    Formula:
        H ← x,  L ← start
        `high_cycles` times: `low_cycles` times L ← norm(low(L + H)), then H ← norm(high(H + L))
        y = H, with low(·) and high(·) each `blocks` blocks of their own, one after the other

    Shapes:
        (B, T, d_model) → (B, T, d_model); start (d_model); cache: high_cycles · (low_cycles + 1) · blocks times that of one
        block

    Paper:
        https://arxiv.org/abs/2506.21734

    Notes:
        A model of one layer with this block has the parameters of 2 · `blocks` layers, and the depth of
        high_cycles · (low_cycles + 1) · blocks. After a low cycle without gradients (`gradient_cycles`), the low state is
        detached, so that gradients stop there; the forward pass is the same.
    """

    formula: ClassVar[str] = r"""
        H \leftarrow x \qquad L \leftarrow z
        L \leftarrow \operatorname{norm}(\text{low}(L + H)) \quad \text{repeated}
        H \leftarrow \operatorname{norm}(\text{high}(H + L)) \qquad y = H
    """

    name: Literal["hierarchical"] = "hierarchical"
    repeats_attention: ClassVar[bool] = True
    blocks: int = Field(2, ge=1, description="Number of blocks of each stack.")
    high_cycles: int = Field(2, ge=1, description="Number of times that the high stack is applied.")
    low_cycles: int = Field(3, ge=1, description="Number of times that the low stack is applied before each high one.")
    gradient_cycles: tuple[int, ...] | None = Field(
        None,
        description="How many of its last low cycles pass gradients on, for each of the last high cycles; one in high "
        "cycles before those listed. By default all pass them on (HRM-Text: [2]).",
    )
    start: Literal["fixed", "learned"] = Field(
        "fixed",
        description="Initial low state, a vector of zeros: `learned` in training, or `fixed` (imported weights may have "
        "other values).",
    )
    block: BlockSpec = component("pre-norm", description="The blocks of both stacks.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"blocks": 1, "start": "learned"},
        {"blocks": 2, "high_cycles": 2, "low_cycles": 2, "gradient_cycles": [1], "block": "sandwich"},
    )

    @property
    def final_norm(self) -> bool:
        return False

    @property
    def wiring(self) -> tuple[Step | Within, ...]:
        """One high cycle, with the low cycles before it as one part."""
        low = Step((("cycles of the low stack", "norm"),))
        return (low, Within("block"), Step((("norm",),), shortcut=False))

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(gradient_cycles=self.gradients())

    def gradients(self) -> tuple[int, ...]:
        """Return the number of low cycles that pass gradients on, the last ones, for each high cycle."""
        if self.gradient_cycles is None:
            return (self.low_cycles,) * self.high_cycles
        return (*(1,) * (self.high_cycles - len(self.gradient_cycles)), *self.gradient_cycles)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        cycles = self.gradient_cycles or ()
        if len(cycles) > self.high_cycles:
            yield Problem(("gradient_cycles",), f"has {len(cycles)} numbers for {self.high_cycles} high cycles; remove some")
        for index, number in enumerate(cycles):
            if not 1 <= number <= self.low_cycles:
                yield Problem(("gradient_cycles", index), f"should be from 1 to low_cycles, {self.low_cycles}")
        chosen = [part for _, part in components(context.parts.attention) if getattr(part, "indexer", None) is not None]
        for name in dict.fromkeys(part.name for part in chosen):
            yield Problem(
                (), f"computes its attention several times, and {name} publishes its choice once; choose another of both"
            )
        if any(isinstance(part, LayerEmbeddingFields) and part.embedded for _, part in components(self.block)):
            yield Problem(
                ("block",), "is computed several times, and a layer has one embedding of each token; choose another block"
            )
        if self.start == "learned" and self.gradients()[0] < self.low_cycles:
            yield Problem(("start",), "no gradient reaches it with these gradient_cycles; set start: fixed")

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.hierarchical import Hierarchical

        return Hierarchical(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.hierarchical import hierarchical

        return hierarchical(self, context)
