"""Token embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import optional_component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.embedding import Embedding

__all__ = ["TokenEmbeddingSpec"]


class TokenEmbeddingSpec(EmbeddingSpec):
    """Table of learned vectors for token ids, with the model's absolute position if it has one.

    Formula:
        x = dropout(position(norm(scale · project(table[id]))))

    Shapes:
        ids (B, T) → (B, T, d_model); table: (vocabulary, d_embedding), d_embedding = d_model unless given

    Notes:
        Gemma scales by √d_model, rounded to the weights' dtype (`scale: sqrt`); Granite by a number; BLOOM normalizes
        the vectors (`norm: layer`); OPT-350m has a narrower table and projects it up.
    """

    formula: ClassVar[str] = r"""
        x = \operatorname{norm}(s \cdot W\,\text{table}[\text{id}]) \qquad
        y = \operatorname{dropout}(\operatorname{embed}(x, t))
    """

    name: Literal["token"] = "token"
    dropout: float = Field(0.0, description="Share of features dropped in training, after positions are added.", ge=0, lt=1)
    scale: float | Literal["sqrt"] | None = Field(
        None, description="Factor of the vectors: a number, or `sqrt` for √d_model."
    )
    norm: NormSpec | None = optional_component(description="Norm of the vectors before positions are added.")
    d_embedding: int | None = Field(
        None, description="Width of the table, projected to d_model if it differs; d_model by default.", ge=1
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
        from gptkit.components.embedding.modules.token import TokenEmbedding

        return TokenEmbedding(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.embedding.written.token import token

        return token(self, context)
