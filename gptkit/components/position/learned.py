"""`learned` absolute positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.position.modules.learned import LearnedPosition

__all__ = ["LearnedSpec"]


class LearnedSpec(PositionSpec):
    """Trainable vector for every position, added to the token embeddings.

    Formula:
        x_t = token_t + table[t + offset]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); table (max_positions + offset, d_model)
    Paper:
        https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    """

    formula: ClassVar[str] = r"x_t = \text{token}_t + \text{table}_{t + \text{offset}}"

    name: Literal["learned"] = "learned"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})

    size: int | None = Field(None, ge=1, description="Number of positions in the table; the context length by default.")
    offset: int = Field(0, ge=0, description="Number of unused rows at the start of the table (OPT: 2).")

    def resolved(self, context: BuildContext) -> LearnedSpec:
        return self.replace(size=self.size or context.context_length)  # type: ignore[no-any-return]

    def max_positions(self, context: BuildContext) -> int | None:
        return self.size or context.context_length

    def build_embedding(self, context: BuildContext) -> LearnedPosition:
        from gptkit.components.position.modules.learned import LearnedPosition

        return LearnedPosition(self, context)

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written:
        from gptkit.components.position.written.absolute import learned

        return learned(self, context)
