"""Block `per-layer-embedding`.

Shapes: B batch, T tokens, E model width, P features of the layer's embedding.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import component, optional_component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

__all__ = ["PerLayerEmbedding", "PerLayerEmbeddingSpec"]


class PerLayerEmbeddingSpec(BlockSpec):
    """Another block, followed by a gated embedding of the token from a small table of the layer.

    Formula:
        x ← block(x)
        x ← x + norm(W_out (activation(W_gate x) ∘ √d_embedding · e[id])), norm optional

    Shapes:
        (B, T, d_model) → (B, T, d_model); e (vocabulary, d_embedding), W_gate (d_embedding, d_model)

    Paper:
        https://ai.google.dev/gemma/docs/gemma-3n

    Notes:
        The per-layer embeddings of Gemma 3n, which also adds a projection of the first layer's input to each e[id]. The
        tables need no accelerator memory: only the rows of the tokens are read. Gemma 3n has a norm (`norm: rms`). Without
        one, W_out is initialized with zeros, so that the model initially equals one without these embeddings.
    """

    name: Literal["per-layer-embedding"] = "per-layer-embedding"
    d_embedding: int = Field(32, ge=1, description="Features of the layer's table (Gemma 3n: 256).")
    activation: ActivationSpec = component("gelu", description="Activation of the gate.")
    norm: NormSpec | None = optional_component(description="Norm of the projected embedding; none by default.")
    block: BlockSpec = component("pre-norm", description="The block before the addition.")
    examples = ({}, {"d_embedding": 6, "norm": "rms", "block": "sandwich"})

    def build(self, context: BuildContext) -> Block:
        return PerLayerEmbedding(self, context)


class PerLayerEmbedding(Block):
    """The runtime part of `PerLayerEmbeddingSpec`."""

    def __init__(self, spec: PerLayerEmbeddingSpec, context: BuildContext) -> None:
        super().__init__()
        self.block = spec.block.build(context)
        self.factor = spec.d_embedding**0.5
        self.table = nn.Embedding(context.vocab_size, spec.d_embedding)
        self.gate = context.linear(context.d_model, spec.d_embedding, bias=False)
        self.activation = spec.activation.build(context)
        self.output = context.linear(spec.d_embedding, context.d_model, bias=False)
        self.norm = None if spec.norm is None else spec.norm.build(context, dim=context.d_model)

    def initial(self) -> dict[str, Initial]:
        # A norm of zeros has an infinite slope, or nearly so.
        return {"output.weight": "zeros" if self.norm is None else "output"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_BTE = self.block(x_BTE, forward)
        # The block may have returned the last tokens only.
        e_BTP = self.factor * self.table(forward.ids_BT[:, -x_BTE.shape[1] :])
        added_BTE: Tensor = self.output(self.activation(self.gate(x_BTE)) * e_BTP)
        return x_BTE + (added_BTE if self.norm is None else self.norm(added_BTE))
