"""Token embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import optional_component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.norm import NormSpec
from gptkit.nn.embedding import Embedding
from gptkit.nn.forward import Forward

__all__ = ["TokenEmbedding", "TokenEmbeddingSpec"]


class TokenEmbeddingSpec(EmbeddingSpec):
    """Looks up a learned vector for every token id, and adds the model's absolute position if it has one.

    Formula:
        x = dropout(position(norm(scale · project(table[id]))))

    Shapes:
        ids (B, T) → (B, T, d_model); table: (vocabulary, d_embedding), d_embedding = d_model unless given

    Notes:
        Gemma scales by √d_model, rounded to the weights' dtype (`scale: sqrt`); Granite by a number; BLOOM normalises
        the vectors (`norm: layer`); OPT-350m keeps its table narrower than the model and projects up.
    """

    name: Literal["token"] = "token"
    dropout: float = Field(0.0, description="Share of features dropped in training, positions included.", ge=0, lt=1)
    scale: float | Literal["sqrt"] | None = Field(
        None, description="What the vectors are multiplied by: a number, or `sqrt` for √d_model."
    )
    norm: NormSpec | None = optional_component(description="Normalises the vectors before positions are added.")
    d_embedding: int | None = Field(
        None, description="Width of the table, projected to d_model where it differs; d_model where left out.", ge=1
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"scale": "sqrt"},
        {"scale": 12.0, "norm": "layer"},
        {"d_embedding": 16},
    )

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(d_embedding=self.d_embedding or context.d_model)

    def build(self, context: BuildContext) -> Embedding:
        return TokenEmbedding(self, context)


class TokenEmbedding(Embedding):
    """The runtime part of `TokenEmbeddingSpec`."""

    def __init__(self, spec: TokenEmbeddingSpec, context: BuildContext) -> None:
        super().__init__()
        d_embedding = spec.d_embedding or context.d_model
        self.scale = math.sqrt(context.d_model) if spec.scale == "sqrt" else spec.scale
        self.table = nn.Embedding(context.vocab_size, d_embedding)
        self.project = (
            nn.Linear(d_embedding, context.d_model, bias=False) if d_embedding != context.d_model else nn.Identity()
        )
        self.norm = nn.Identity() if spec.norm is None else spec.norm.build(context, dim=context.d_model)
        position = context.position
        absolute = position is not None and "embed" in position.uses
        self.position = position.build_embedding(context) if position is not None and absolute else None
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    @property
    def table_VE(self) -> nn.Parameter:
        return cast("nn.Parameter", self.table.weight)

    def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        x_BTE = self.project(self.table(ids_BT))
        if self.scale is not None:
            x_BTE = x_BTE * self._factor(x_BTE.dtype)
        x_BTE = self.norm(x_BTE)
        if self.position is not None:
            x_BTE = self.position.embed(x_BTE, forward.positions)
        dropped_BTE: Tensor = self.dropout(x_BTE)
        return dropped_BTE

    def _factor(self, dtype: torch.dtype) -> float | Tensor:
        assert self.scale is not None
        # A plain number would be applied unrounded; in bf16, Gemma's weights expect the rounded factor.
        return self.scale if dtype == torch.float32 else torch.tensor(self.scale, dtype=dtype, device="cpu")
