"""`varlen`: attention over packed documents without a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.attention_backend import AttentionBackendSpec, ScoreFeatures

if TYPE_CHECKING:
    from gptkit.nn.attention.backends.base import AttentionBackend

__all__ = ["VarlenSpec"]


class VarlenSpec(AttentionBackendSpec):
    """Attention over packed documents separately, without computing scores between documents.

    Notes:
        On CUDA in half precision, one call of torch's varlen_attn computes all documents, given their cumulative lengths;
        elsewhere each document is one call of `sdpa`. Calls with a cache or a bidirectional prefix are computed by `sdpa`.
    """

    formula: ClassVar[str] = r"""
        y_d = \operatorname{softmax}\left(s\, q_d k_d^\top + \text{mask}\right) v_d \qquad
        \text{for each document } d
    """

    name: Literal["varlen"] = "varlen"

    def limitation(self, features: ScoreFeatures) -> str | None:
        if features.bias or features.content_term or features.added_term:
            return "terms of the scores"
        if features.softcap:
            return "a softcap"
        if features.sinks:
            return "sinks"
        if features.value_term:
            return "a position's term on the values"
        if features.mixes_heads:
            return "mixing of heads around the softmax"
        if features.pattern:
            return "a mask pattern other than a window, such as chunks"
        return "dropout of attention weights" if features.dropout else None

    def build(self) -> AttentionBackend:
        from gptkit.nn.attention.backends.varlen import VarlenBackend

        return VarlenBackend()
