"""Runtime module of embedding `token`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward
from gptkit.nn.position import build_absolute
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.embedding.token import TokenEmbeddingSpec

__all__ = ["TokenEmbedding"]


class TokenEmbedding(Embedding):
    """Module of `TokenEmbeddingSpec`."""

    def __init__(self, spec: TokenEmbeddingSpec, context: BuildContext) -> None:
        super().__init__()
        d_embedding = spec.d_embedding or context.d_model
        self.scale = math.sqrt(context.d_model) if spec.scale == "sqrt" else spec.scale
        self.table = nn.Embedding(context.vocab_size, d_embedding)
        self.project = (
            context.linear(d_embedding, context.d_model, bias=False) if d_embedding != context.d_model else nn.Identity()
        )
        self.norm = nn.Identity() if spec.norm is None else spec.norm.build(context, dim=context.d_model)
        self.position = build_absolute(context)
        self.dropout = spec.dropout

    @property
    def table_VE(self) -> nn.Parameter:
        return cast("nn.Parameter", self.table.weight)

    @property
    def vocabulary_table(self) -> Tensor:
        return self.table_VE

    def vocabulary_parameters(self) -> Mapping[str, int]:
        return {"table.weight": -2}

    def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        part = self.vocabulary_part
        x_BTE = self.project(self.table(ids_BT) if part is None else part.look_up(ids_BT, self.table_VE))
        if self.scale is not None:
            x_BTE = x_BTE * self._factor(x_BTE.dtype)
        x_BTE = self.norm(x_BTE)
        if self.position is not None:
            x_BTE = self.position.embed(x_BTE, forward.positions)
        dropped_BTE: Tensor = dropout(x_BTE, self.dropout, self.training)
        return dropped_BTE

    def _factor(self, dtype: torch.dtype) -> float | Tensor:
        assert self.scale is not None
        # A Python number would not be rounded; in bf16, Gemma's weights require the rounded factor.
        return self.scale if dtype == torch.float32 else torch.tensor(self.scale, dtype=dtype, device="cpu")
