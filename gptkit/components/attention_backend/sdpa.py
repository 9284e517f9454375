"""`sdpa`: torch's fused attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.attention_backend import AttentionBackendSpec, ScoreFeatures

if TYPE_CHECKING:
    from gptkit.nn.attention.backends.base import AttentionBackend

__all__ = ["SdpaSpec"]


class SdpaSpec(AttentionBackendSpec):
    """Fused scaled_dot_product_attention of torch, which selects a kernel for the device.

    Notes:
        Masks other than the plain causal one, and score terms, are passed as a tensor (T, S). Sinks are passed as an
        additional key of zeros. A softcap, value terms and mixing of heads cannot be expressed.

        Training on a CPU with the plain causal mask uses explicit products over blocks of queries up to 1024 tokens
        (`blocks`), which take about half the time, and a quarter with dropout. They store the attention weights for the
        backward pass, and round scores to the dtype of the products, as `eager` does.
    """

    formula: ClassVar[str] = r"""
        p = \operatorname{softmax}(\text{mask} + b + \operatorname{cap}(s\, q k^\top + c))
        y = p\, v
    """

    name: Literal["sdpa"] = "sdpa"
    blocks: bool = Field(True, description="Train on the CPU by explicit products over blocks, where these are faster.")

    def limitation(self, features: ScoreFeatures) -> str | None:
        if features.softcap:
            return "a softcap"
        if features.value_term:
            return "a position's term on the values"
        return "mixing of heads around the softmax" if features.mixes_heads else None

    def build(self) -> AttentionBackend:
        from gptkit.nn.attention.backends.sdpa import SdpaBackend

        return SdpaBackend(blocks=self.blocks)
