"""`learned` absolute positions.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import PositionSpec
from gptkit.nn.initial import Initial
from gptkit.nn.position import Position

__all__ = ["LearnedPosition", "LearnedSpec"]


class LearnedSpec(PositionSpec):
    """A trainable vector for every position, added to the token embeddings.

    Formula:
        x_t = token_t + table[t + offset]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); table (max_positions + offset, d_model)
    Paper:
        https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    """

    name: Literal["learned"] = "learned"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})

    size: int | None = Field(None, ge=1, description="Positions that the table has; the context length by default.")
    offset: int = Field(0, ge=0, description="Rows at the table's start that no position uses (OPT has 2).")

    def resolved(self, context: BuildContext) -> LearnedSpec:
        return self.replace(size=self.size or context.context_length)  # type: ignore[no-any-return]

    def max_positions(self, context: BuildContext) -> int | None:
        return self.size or context.context_length

    def build_embedding(self, context: BuildContext) -> LearnedPosition:
        return LearnedPosition(self, context)

    def describe(self) -> str:
        return f"learned, {self.size} positions"


class LearnedPosition(Position):
    """Runtime of `learned`."""

    def __init__(self, spec: LearnedSpec, context: BuildContext) -> None:
        super().__init__()
        self.offset = spec.offset
        self.table = nn.Embedding((spec.size or context.context_length) + spec.offset, context.d_model)

    def initial(self) -> dict[str, Initial]:
        return {"table.weight": "embedding"}

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        added: Tensor = self.table(positions + self.offset if self.offset else positions)
        return x_BTE + added
