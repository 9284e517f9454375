"""Multi-token prediction, an auxiliary loss of additional prediction modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.head.distillation import DistillationHeadSpec
from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.core.walk import components
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.embedding import Embedding
    from gptkit.nn.head import Head

__all__ = ["MultiTokenHeadSpec"]


class MultiTokenHeadSpec(HeadSpec):
    """Multi-token prediction: in training, additional modules predict `depth` tokens after the next one (DeepSeek-V3).

    Formula:
        h⁰ = x;  module k: hᵏ[t] = block(W · [norm(hᵏ⁻¹[t]); norm(embedding(id[t + k]))])
        logitsᵏ[t] = head(norm(hᵏ[t])), scored against the token t + k + 1
        loss = cross-entropy of logits⁰ + weight / depth · Σ cross-entropy of logitsᵏ

    Shapes:
        (B, T, d_model) → (B, T, vocabulary); W of each module: (d_model, 2 · d_model)

    Paper:
        https://arxiv.org/abs/2412.19437

    Notes:
        All modules share the embedding and the inner head. They are computed in training, and by the drafter `mtp`, which
        proposes tokens with them; logits and the validation loss are the inner head's. Blocks use the model's position,
        attention, norm and feed-forward.
        Tokens whose target is in another document of a packed row are excluded.
    """

    formula: ClassVar[str] = r"""
        h^k_t = \text{block}\left(W \left[\operatorname{norm}(h^{k-1}_t)\ \operatorname{norm}(e_{t+k})\right]\right)
        z^k_t = \text{head}(\operatorname{norm}(h^k_t)) \qquad h^0 = x
        \text{loss} = \text{CE}(z^0) + \frac{\lambda}{K} \sum_k \text{CE}(z^k)
    """

    name: Literal["multi-token"] = "multi-token"
    head: HeadSpec = component("linear", description="Head that computes the logits of all predicted tokens.")
    block: BlockSpec = component("pre-norm", description="Block of each prediction module.")
    depth: int = Field(1, ge=1, description="Number of predicted tokens after the next one.")
    weight: float = Field(0.3, gt=0, description="Weight of the modules' mean loss (DeepSeek-V3: 0.3, then 0.1).")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"depth": 2, "head": {"name": "linear", "tied": True}})

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if self.depth >= context.context_length:
            yield Problem(("depth",), f"must be below the context length {context.context_length}; choose a smaller one")
        if any(isinstance(part, DistillationHeadSpec) for _, part in components(self.head)):
            yield Problem(
                ("head",),
                "is called for every predicted token, and the teacher of a distillation once; make distillation the outer "
                "head, and multi-token its head",
            )
        if any(isinstance(part, MultiTokenHeadSpec) for _, part in components(self.head)):
            yield Problem(("head",), "predicts further tokens itself; choose another head, and set depth to their number")

    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        from gptkit.components.head.modules.multi_token import MultiTokenHead

        return MultiTokenHead(self, context, embedding)

    def written(self, context: WritingContext, *, embedding: EmbeddingSpec) -> Written:
        from gptkit.components.head.written.wrapped import wrapped

        return wrapped(self.head, context, embedding, fields=("head", "block", "depth", "weight"), unused=["modules_after."])
