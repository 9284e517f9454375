"""Attention `value-embedding`.

Shapes: B batch, H query heads, K key/value heads, T tokens, D head size, E model width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import optional_component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit_research.heads import GroupedHeadsSpec

__all__ = ["ValueEmbeddingAttention", "ValueEmbeddingSpec"]


class ValueEmbeddingSpec(GroupedHeadsSpec):
    """Value embeddings: a table of the layer's own adds a vector of the token to each value.

    Formula:
        v' = own · v + embedding · g ∘ e[id], with a table e of n_kv_heads · d_head features
        g = 2 · sigmoid(W_g x[: gate_features]), one number per key/value head; 1 without a gate
        y = W_o [head_1 … head_H],  head_h = softmax(q_h k_gᵀ / √d_head + mask) v'_g,  g = h // (n_heads / n_kv_heads)
    Shapes:
        (B, T, d_model) -> (B, T, d_model); table (vocabulary, n_kv_heads · d_head);
        cache: 2 · n_kv_heads · d_head values per token
    Paper:
        https://github.com/KellerJordan/modded-nanogpt
    Notes:
        Chosen layers have it: those with this attention. Layers that name the same `table` share one. In modded-nanogpt the
        first three layers and the last three share three tables, and both factors are initially 0.5. nanochat has a table
        in every second layer, and a gate: `{own: 1, embedding: 1, learned: false, gate_features: 32}`
        (https://github.com/karpathy/nanochat). With `{own: 1, embedding: 0}` the model initially equals one with ordinary
        attention. The gate's weights are initially zeros, so that g is 1.
    """

    name: Literal["value-embedding"] = "value-embedding"

    table: str | None = Field(
        None, min_length=1, description="Name of a table that layers share; by default the layer has a table of its own."
    )
    own: float = Field(0.5, description="Factor of the layer's own values.")
    embedding: float = Field(0.5, description="Factor of the token's value embedding.")
    learned: bool = Field(True, description="Learn both factors in each layer, from these initial values.")
    gate_features: int | None = Field(
        None, ge=1, description="The first features of the input, from which a gate is computed; no gate by default."
    )
    qk_norm: NormSpec | None = optional_component(description="A norm for queries and keys, before position is applied.")
    examples = ({}, {"table": "first"}, {"own": 1.0, "embedding": 1.0, "learned": False, "gate_features": 4})

    def build(self, context: BuildContext) -> ValueEmbeddingAttention:
        return ValueEmbeddingAttention(self, context)


class ValueEmbeddingAttention(SoftmaxAttention):
    """Runtime part of `ValueEmbeddingSpec`. The cache holds the mixed values, so that decoding has no additional state."""

    def __init__(self, spec: ValueEmbeddingSpec, context: BuildContext) -> None:
        heads = spec.heads
        super().__init__(context, heads, scale=heads.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        self.split = [heads.n_heads, heads.n_kv_heads, heads.n_kv_heads]
        self.d_head = heads.d_head
        width = heads.n_kv_heads * heads.d_head
        # Heads of another shape need a table of another width, under the same name.
        shared = ("value-embedding", spec.table, width)
        self.table: nn.Embedding = (
            nn.Embedding(context.vocab_size, width)
            if spec.table is None
            else context.share(shared, lambda: nn.Embedding(context.vocab_size, width))
        )
        self.factors = [spec.own, spec.embedding]
        self.mix = nn.Parameter(torch.tensor(self.factors)) if spec.learned else None
        n_gate = min(spec.gate_features or 0, context.d_model)
        self.gate = nn.Linear(n_gate, heads.n_kv_heads, bias=False) if n_gate else None
        self.query_norm = None if spec.qk_norm is None else spec.qk_norm.build(context, dim=heads.d_head)
        self.key_norm = None if spec.qk_norm is None else spec.qk_norm.build(context, dim=heads.d_head)
        self.qkv = context.linear(context.d_model, sum(self.split) * heads.d_head, bias=False)
        """Rows: all query heads, then keys, then values; head by head."""
        self.output = context.linear(heads.n_heads * heads.d_head, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {"output.weight": "output"}
        if self.mix is not None:
            initial["mix"] = lambda shape, generator: torch.tensor(self.factors)
        if self.gate is not None:
            initial["gate.weight"] = "zeros"
        return initial

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        packed_BTXD = self.qkv(x_BTE).unflatten(-1, (-1, self.d_head))
        q_BHTD, k_BKTD, v_BKTD = packed_BTXD.transpose(1, 2).split(self.split, dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            q_BHTD, k_BKTD = self.query_norm(q_BHTD), self.key_norm(k_BKTD)
        # Layers may run on the last tokens only.
        e_BTX = self.table(forward.ids_BT[:, -x_BTE.shape[1] :])
        e_BKTD = torch.unflatten(e_BTX, -1, (-1, self.d_head)).transpose(1, 2)
        if self.gate is not None:
            gate_BTK = 2 * self.gate(x_BTE[..., : self.gate.in_features]).sigmoid()
            e_BKTD = gate_BTK.transpose(1, 2)[..., None] * e_BKTD
        own, embedding = self.factors if self.mix is None else self.mix.to(v_BKTD.dtype)
        return q_BHTD, k_BKTD, own * v_BKTD + embedding * e_BKTD

    def combine(self, out_BHTV: Tensor, x_BTE: Tensor) -> Tensor:
        return self.output(out_BHTV.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
