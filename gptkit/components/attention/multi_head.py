"""`multi-head` attention."""

from __future__ import annotations

from typing import ClassVar, Literal

from gptkit.components.attention.grouped_query import HeadedSpec
from gptkit.kinds.written import WritingContext, Written

__all__ = ["MultiHeadSpec"]


class MultiHeadSpec(HeadedSpec):
    """Multi-head causal self-attention, with separate queries, keys and values per head.

    Formula:
        head_h = softmax(q_h k_hᵀ / √d_head + mask) v_h,  [q k v] = W_qkv x
        y = W_o [head_1 … head_H]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: 2 · n_heads · d_head values per token
    Paper:
        https://arxiv.org/abs/1706.03762
    """

    formula: ClassVar[str] = r"""
        [q\ k\ v] = W_{qkv} x
        \text{head}_h = \operatorname{softmax}\left(\frac{q_h k_h^\top}{\sqrt{d}} + \text{mask}\right) v_h
        y = W_o [\text{head}_1 \dots \text{head}_H]
    """

    name: Literal["multi-head"] = "multi-head"

    @property
    def kv_heads(self) -> int:
        assert self.n_heads is not None
        return self.n_heads

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.grouped_query import headed

        return headed(self, context, grouped=False)
