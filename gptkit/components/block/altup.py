"""Block with alternating updates of several residual streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.block.per_layer_embedding import GATED, LayerEmbeddingFields
from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.core.walk import components
from gptkit.kinds.block import BlockSpec, Step, Within
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["AltUpSpec"]


class AltUpSpec(LayerEmbeddingFields):
    """Alternating updates (AltUp): a block transforms one of several residual streams; small maps predict and correct all.

    Formula:
        m(v) = tanh(W_m norm(v) / d_model), streams s_0 … s_{N-1}
        ŝ_j = s_j + Σ_i P(m(s_0))_ji s_i
        s_j = ŝ_j + (1 + (C m(y))_j) (y - ŝ_0), with y = block(ŝ_0)
        First layer: s_0 = x, s_i = W_i x · ‖x‖ / ‖W_i x‖ for i > 0
        Last layer: x = the mean of s_0 and U_i s_i · ‖s_0‖ / ‖U_i s_i‖ for i > 0
        With `d_embedding`: s_i ← s_i + norm(W_out (activation(W_gate (c ⊙ s_0)) ⊙ p_l)) for i > 0,
        p_l as in block `per-layer-embedding`

    Shapes:
        (B, T, d_model) → (B, T, d_model); W_m (N, d_model), P (N², N), C (N, N), c (d_model)

    Paper:
        https://arxiv.org/abs/2301.13310

    Notes:
        The form of Gemma 3n. The streams widen the model's representation by the factor N, while the block computes with one
        of them. A block carries its streams to the next one (`Forward.carry`), and returns the first; the last layer returns
        the mean. P and C are initialized with zeros, so that all streams initially change by what the block adds.
    """

    formula: ClassVar[str] = r"""
        m(v) = \tanh\left(W_m \operatorname{norm}(v) / d\right) \qquad \hat{s}_j = s_j + \sum_i P(m(s_0))_{ji}\, s_i
        y = \operatorname{block}(\hat{s}_0) \qquad s_j = \hat{s}_j + \left(1 + (C\, m(y))_j\right) (y - \hat{s}_0)
    """

    name: Literal["altup"] = "altup"
    only_with: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("n_ids", "projection", "activation", "norm", "correct_scale"), "d_embedding"
    )
    streams: int = Field(4, ge=2, description="Number of residual streams.")
    clip: float | None = Field(120.0, gt=0, description="Bound of the weights P and C in training.")
    correct_scale: bool = Field(True, description="Multiply what the layer's embedding is gated by with weights c.")
    block: BlockSpec = component("pre-norm", description="The block that transforms the first stream.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"streams": 2},
        {"streams": 3, "d_embedding": 6, "norm": "rms", "projection": True, "block": "laurel"},
    )

    @property
    def wiring(self) -> tuple[Step | Within, ...]:
        predicted, updated = (
            Step((("prediction of all streams from all",),)),
            Step((("update of all streams from the first",),)),
        )
        return (predicted, Within("block"), updated, Step(((GATED,),), only_with="d_embedding"))

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if context.parts.index >= context.n_layers:
            yield Problem((), "has no streams for the blocks of a head; choose another block there")
        if any(isinstance(part, AltUpSpec) for _, part in components(self.block)):
            yield Problem(("block",), "a block with streams cannot be within another one; choose another block")
        yield from self.nested_problems()

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.altup import AltUp

        return AltUp(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.altup import altup

        return altup(self, context)
