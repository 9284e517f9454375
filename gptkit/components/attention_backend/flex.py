"""`flex`: torch's flex attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.attention_backend import AttentionBackendSpec, ScoreFeatures

if TYPE_CHECKING:
    from gptkit.nn.attention.backends.base import AttentionBackend

__all__ = ["FlexSpec"]


class FlexSpec(AttentionBackendSpec):
    """Flex attention of torch: masks and score terms are functions, without (T, S) tensors, and masked blocks are skipped.

    Paper:
        https://arxiv.org/abs/2412.05496
    Notes:
        Designed for CUDA, where it is compiled. On the CPU it supports inference only (torch has no backward pass there) and
        materializes all scores; inside a compiled model on the CPU, `eager` is used instead. Sliding windows over long texts
        and packed documents benefit most.
    """

    formula: ClassVar[str] = r"""
        p = \operatorname{softmax}(\text{mask} + b + \operatorname{cap}(s\, q k^\top + c))
        y = p\, v
    """

    name: Literal["flex"] = "flex"

    def limitation(self, features: ScoreFeatures) -> str | None:
        if features.bias and not features.score_function:
            return "a position's bias that has no score function"
        if features.content_term or features.added_term:
            return "a term of the scores that depends on the tokens' content"
        if features.value_term:
            return "a position's term on the values"
        if features.mixes_heads:
            return "mixing of heads around the softmax"
        return "dropout of attention weights" if features.dropout else None

    def choice(self, features: ScoreFeatures) -> tuple[AttentionBackendSpec, str]:
        return self, "selected by the spec; in a compiled model on the CPU, eager computes"

    def build(self) -> AttentionBackend:
        from gptkit.nn.attention.backends.flex import FlexBackend

        return FlexBackend()
