"""`simple` attention, without trainable weights.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import ScoredAttention, head_problems
from gptkit.nn.forward import Forward

__all__ = ["SimpleAttention", "SimpleSpec"]


class SimpleSpec(AttentionSpec):
    """Attention without trainable weights: inputs are averaged by the softmax of their own dot products.

    Formula:
        y = softmax(x xᵀ + mask) x
    Shapes:
        (B, T, d_model) -> (B, T, d_model)
    Notes:
        The first step of chapter 3 of "Build a Large Language Model (From Scratch)". Here, as everywhere, causal.
    """

    name: Literal["simple"] = "simple"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "bias"})

    scaled: bool = Field(False, description="Divide the dot products by √d_model, as attention with weights does.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(None, ge=1, description="Sliding window in tokens, the current one included; all by default.")

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        yield from head_problems(context, HeadShape(1, 1, context.d_model))

    def build(self, context: BuildContext) -> SimpleAttention:
        return SimpleAttention(self, context)


class SimpleAttention(ScoredAttention):
    """Runtime of `simple`: queries, keys and values are the inputs themselves."""

    def __init__(self, spec: SimpleSpec, context: BuildContext) -> None:
        scale = context.d_model**-0.5 if spec.scaled else 1.0
        super().__init__(context, HeadShape(1, 1, context.d_model), scale=scale, dropout=spec.dropout, window=spec.window)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_B1TE = x_BTE[:, None]
        return self.attend(x_B1TE, x_B1TE, x_B1TE, forward)[:, 0]
