"""`single-head` attention.

Shapes: B batch, T tokens, D width of the head, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import ScoredAttention, head_problems
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

__all__ = ["SingleHeadAttention", "SingleHeadSpec"]


class SingleHeadSpec(AttentionSpec):
    """Scaled dot-product attention with one head: three trainable matrices W_query, W_key and W_value.

    Formula:
        q = x W_query, k = x W_key, v = x W_value
        y = softmax(q kᵀ / √d_k + mask) v,  then W_output back to d_model where the widths differ
    Shapes:
        (B, T, d_model) -> (B, T, d_model); the head works in d_head features
    Paper:
        https://arxiv.org/abs/1706.03762
    """

    name: Literal["single-head"] = "single-head"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "bias", "content_bias", "value_bias"})

    d_head: int | None = Field(
        None, ge=1, description="Width that W_query, W_key and W_value project into; d_model by default."
    )
    qkv_bias: bool = Field(False, description="Add a bias to the three projections.")
    output: bool | None = Field(
        None, description="Project the result with W_output; by default only where d_head is not d_model, which needs it."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(None, ge=1, description="Sliding window in tokens, the current one included; all by default.")
    scale: float | None = Field(None, gt=0, description="Factor of the dot products; 1/√d_head by default.")

    def resolved(self, context: BuildContext) -> Any:
        d_head = self.d_head or context.d_model
        output = d_head != context.d_model if self.output is None else self.output
        return self.replace(d_head=d_head, output=output)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.d_head is not None
        if self.d_head != context.d_model and not self.output:
            yield Problem(
                ("output",),
                f"the head of {self.d_head} features must be projected back to d_model {context.d_model}; set output: true",
            )
        yield from head_problems(context, HeadShape(1, 1, self.d_head))

    def build(self, context: BuildContext) -> SingleHeadAttention:
        return SingleHeadAttention(self, context)


class SingleHeadAttention(ScoredAttention):
    """Runtime of `single-head`, with the three projections apart, as they are taught."""

    def __init__(self, spec: SingleHeadSpec, context: BuildContext) -> None:
        assert spec.d_head is not None
        heads = HeadShape(1, 1, spec.d_head)
        super().__init__(context, heads, scale=spec.scale or spec.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        self.W_query = nn.Linear(context.d_model, spec.d_head, bias=spec.qkv_bias)
        self.W_key = nn.Linear(context.d_model, spec.d_head, bias=spec.qkv_bias)
        self.W_value = nn.Linear(context.d_model, spec.d_head, bias=spec.qkv_bias)
        self.W_output = nn.Linear(spec.d_head, context.d_model, bias=False) if spec.output else None

    def initial(self) -> dict[str, Initial]:
        return {} if self.W_output is None else {"W_output.weight": "output"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        q, k, v = (project(x_BTE)[:, None] for project in (self.W_query, self.W_key, self.W_value))
        out_BTD = self.attend(q, k, v, forward)[:, 0]
        return out_BTD if self.W_output is None else self.W_output(out_BTD)
