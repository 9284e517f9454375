"""`sdpa`: torch's fused attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
