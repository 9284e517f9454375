"""Runtime modules of block `per-layer-embedding`.

Shapes: B batch, T tokens, E model width, L layers, P features of a layer's embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.block.per_layer_embedding import LayerEmbeddingFields, PerLayerEmbeddingSpec

__all__ = ["LayerEmbedding", "LayerInputs", "PerLayerEmbedding"]


class LayerInputs(nn.Module):
    """The embeddings of tokens for all layers, from one table, and perhaps a projection of the first layer's input."""

    def __init__(self, spec: LayerEmbeddingFields, context: BuildContext) -> None:
        super().__init__()
        assert spec.d_embedding is not None
        n_layers, d_embedding = context.n_layers, spec.d_embedding
        self.n_ids = None if spec.n_ids is None or spec.n_ids >= context.vocab_size else spec.n_ids
        self.sizes = (n_layers, d_embedding)
        self.factor = d_embedding**0.5
        self.table = nn.Embedding(self.n_ids or context.vocab_size, n_layers * d_embedding)
        self.projection = context.linear(context.d_model, n_layers * d_embedding, bias=False) if spec.projection else None
        self.projection_factor = context.d_model**-0.5
        normed = spec.projection and spec.norm is not None
        self.norm = spec.norm.build(context, dim=d_embedding) if normed and spec.norm is not None else None

    def forward(self, ids_BT: Tensor, x_BTE: Tensor) -> Tensor:
        """Return the embeddings of tokens for all layers, (B, T, L, P)."""
        if self.n_ids is not None:
            ids_BT = torch.where(ids_BT < self.n_ids, ids_BT, 0)
        e_BTLP: Tensor = (self.table(ids_BT) * _rounded(self.factor, self.table.weight)).unflatten(-1, self.sizes)
        if self.projection is None:
            return e_BTLP
        projected_BTLP = (self.projection(x_BTE) * self.projection_factor).unflatten(-1, self.sizes)
        if self.norm is not None:
            projected_BTLP = self.norm(projected_BTLP)
        sum_BTLP: Tensor = (projected_BTLP + e_BTLP) * 0.5**0.5
        return sum_BTLP


class LayerEmbedding(nn.Module):
    """The gated embedding of one layer; of the layers with equal fields, the first one publishes the embeddings of all."""

    def __init__(self, spec: LayerEmbeddingFields, context: BuildContext) -> None:
        super().__init__()
        assert spec.d_embedding is not None
        self.layer = context.parts.index
        key = ("per-layer-embedding", spec.d_embedding, spec.n_ids, spec.projection, spec.norm)
        self.key = (*key, "features")
        # Layers are built in order.
        self.is_first = context.share((*key, "first"), lambda: self.layer) == self.layer
        self.publishes = (self.key,) if self.is_first else ()
        self.reads = () if self.is_first else (self.key,)
        if self.is_first:
            self.inputs = context.share(key, lambda: LayerInputs(spec, context))
        self.gate = context.linear(context.d_model, spec.d_embedding, bias=False)
        self.activation = spec.activation.build(context)
        self.output = context.linear(spec.d_embedding, context.d_model, bias=False)
        self.norm = None if spec.norm is None else spec.norm.build(context, dim=context.d_model)

    def initial(self) -> dict[str, Initial]:
        # A norm of zeros has an infinite slope, or nearly so.
        return {"output.weight": "zeros" if self.norm is None else "output"}

    def features(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Return the tokens' embeddings for this layer, (B, T, P), for the layer's input."""
        if self.is_first:
            e_BTLP: Tensor = self.inputs(forward.ids_BT[:, -x_BTE.shape[1] :], x_BTE)
            forward.publish(self, self.key, e_BTLP)
        else:
            e_BTLP = forward.read(self, self.key)
        return e_BTLP[:, :, self.layer]

    def forward(self, x_BTE: Tensor, e_BTP: Tensor) -> Tensor:
        """Return what is added to the tokens, (B, T, E)."""
        # Blocks may have returned the last tokens only.
        added_BTE: Tensor = self.output(self.activation(self.gate(x_BTE)) * e_BTP[:, -x_BTE.shape[1] :])
        return added_BTE if self.norm is None else self.norm(added_BTE)


class PerLayerEmbedding(Block):
    """Runtime part of `PerLayerEmbeddingSpec`."""

    def __init__(self, spec: PerLayerEmbeddingSpec, context: BuildContext) -> None:
        super().__init__()
        self.block = spec.block.build(context)
        self.embedding = LayerEmbedding(spec, context)
        self.output_scale = (
            None if spec.output_scale is None else nn.Parameter(torch.ones(1), requires_grad=spec.output_scale == "learned")
        )

    def initial(self) -> dict[str, Initial]:
        return {} if self.output_scale is None else {"output_scale": "ones"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        e_BTP = self.embedding.features(x_BTE, forward)
        x_BTE = self.block(x_BTE, forward)
        x_BTE = x_BTE + self.embedding(x_BTE, e_BTP)
        return x_BTE if self.output_scale is None else x_BTE * self.output_scale.to(x_BTE.dtype)


def _rounded(factor: float, weight: Tensor) -> float | Tensor:
    # A Python number would not be rounded; in bf16, Gemma's weights require the rounded factor.
    return factor if weight.dtype == torch.float32 else torch.tensor(factor, dtype=weight.dtype, device="cpu")
