"""Attention backend `auto`: selects a backend for each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.components.attention_backend.eager import EagerSpec
from gptkit.components.attention_backend.sdpa import SdpaSpec
from gptkit.kinds.attention_backend import AttentionBackendSpec, ScoreFeatures

if TYPE_CHECKING:
    from gptkit.nn.attention.backends.base import AttentionBackend

__all__ = ["AutoSpec"]


class AutoSpec(AttentionBackendSpec):
    """Select `sdpa` for each layer that it supports, and `eager` for the others."""

    formula: ClassVar[str] = r"""
        p = \operatorname{softmax}(\text{mask} + b + \operatorname{cap}(s\, q k^\top + c))
        y = p\, v
    """

    name: Literal["auto"] = "auto"

    def limitation(self, features: ScoreFeatures) -> str | None:
        return None

    def choice(self, features: ScoreFeatures) -> tuple[AttentionBackendSpec, str]:
        sdpa = SdpaSpec(blocks=True)
        limitation = sdpa.limitation(features)
        if limitation is None:
            return sdpa, "fused attention can express the layer"
        return EagerSpec(), f"fused attention cannot compute {limitation}"

    def build(self) -> AttentionBackend:
        return SdpaSpec(blocks=True).build()
