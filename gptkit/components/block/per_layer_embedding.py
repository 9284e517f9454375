"""Block with an embedding of the token for each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.block.sandwich import output_scaling
from gptkit.core.component import component, optional_component
from gptkit.core.errors import Problem
from gptkit.core.walk import components
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.block import BlockSpec, Step, Within
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["GATED", "LayerEmbeddingFields", "PerLayerEmbeddingSpec"]

GATED = "gated embedding of the layer"
"""Title of what is added, in diagrams."""


class LayerEmbeddingFields(BlockSpec):
    """Fields of blocks with an embedding for each layer."""

    d_embedding: int | None = Field(None, ge=1, description="Features of a token for each layer (Gemma 3n and 4: 256).")
    n_ids: int | None = Field(
        None,
        ge=1,
        description="Number of token ids with a row in the table, the first ones; others have row 0. By default all.",
    )
    projection: bool = Field(False, description="Add a projection of the first layer's input to the embedding.")
    activation: ActivationSpec = component("gelu", description="Activation of the gate.")
    norm: NormSpec | None = optional_component(
        description="Norm of what is added, and of the projection, with one weight for all layers; none by default."
    )

    @property
    def embedded(self) -> tuple[Any, ...] | None:
        """The fields that select the shared table; None without an embedding."""
        return None if self.d_embedding is None else (self.d_embedding, self.n_ids, self.projection, self.norm)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if context.parts.index >= context.n_layers:
            yield Problem((), "has no embedding for the blocks of a head; choose another block there")
        yield from self.nested_problems()

    def nested_problems(self) -> Iterator[Problem]:
        """Yield a problem if a block within this one has the same embedding, of which a layer has one."""
        inner = [
            part.embedded for _, part in components(self) if part is not self and isinstance(part, LayerEmbeddingFields)
        ]
        if self.embedded is not None and self.embedded in inner:
            yield Problem(
                ("block",), "has the embedding of the block around it; choose another d_embedding, or another block"
            )


class PerLayerEmbeddingSpec(LayerEmbeddingFields):
    """Another block, followed by a gated embedding of the token, for which every layer has features of its own (PLE).

    Formula:
        x ← block(x)
        x ← x + norm(W_out (activation(W_gate x) ⊙ p_l)), with p_l = √d_embedding · e_l[id]
        With `projection`: p_l = (√d_embedding · e_l[id] + norm(W_l x_0 / √d_model)) / √2
        x_0 is the input of the first layer with this embedding

    Shapes:
        (B, T, d_model) → (B, T, d_model); W_gate (d_embedding, d_model); the tables e of all layers are one,
        (n_ids, n_layers · d_embedding), and so are the projections W_l, (n_layers · d_embedding, d_model)

    Paper:
        https://ai.google.dev/gemma/docs/gemma-3n

    Notes:
        The per-layer embeddings of Gemma 3n and Gemma 4 (`projection: true`, `norm: rms`). Of the table, only the rows of
        the tokens are read. Without a norm, W_out is initialized with zeros, so that the model initially equals one without
        these embeddings. All layers with equal fields share the table: the first of them looks up the features of all, and
        publishes them (`Forward.publish`).
    """

    formula: ClassVar[str] = r"""
        p_l = \frac{1}{\sqrt{2}} \left(\sqrt{d}\, e_l[\text{id}] + \operatorname{norm}(W_l x_0 / \sqrt{d_{model}})\right)
        x \leftarrow x + \operatorname{norm}(W_{\text{out}} (f(W_{\text{gate}} x) \odot p_l))
    """

    name: Literal["per-layer-embedding"] = "per-layer-embedding"
    d_embedding: int = Field(32, ge=1, description="Features of a token for each layer (Gemma 3n and 4: 256).")
    output_scale: Literal["fixed", "learned"] | None = Field(
        None,
        description="Multiply the block's output by a number, initially 1: `learned` in training, or `fixed` (imported "
        "weights may have another value, as those of Gemma 4). None by default.",
    )
    block: BlockSpec = component("pre-norm", description="The block before the addition.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"d_embedding": 6, "norm": "rms", "projection": True, "block": "sandwich"},
        {"d_embedding": 4, "n_ids": 9, "projection": True, "output_scale": "learned", "activation": "silu"},
    )

    @property
    def wiring(self) -> tuple[Step | Within, ...]:
        return (Within("block"), Step(((GATED,),), scaled=output_scaling(self.output_scale)))

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.per_layer_embedding import PerLayerEmbedding

        return PerLayerEmbedding(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.per_layer_embedding import per_layer_embedding

        return per_layer_embedding(self, context)
