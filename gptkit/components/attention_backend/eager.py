"""Attention backend `eager`: explicit computation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.attention_backend import AttentionBackendSpec, ScoreFeatures

if TYPE_CHECKING:
    from gptkit.nn.attention.backends.base import AttentionBackend

__all__ = ["EagerSpec"]


class EagerSpec(AttentionBackendSpec):
    """Compute scores, softmax and output explicitly; supports all features, with all scores in memory.

    Notes:
        Memory grows with the square of the text's length. Requested attention weights are computed by this backend,
        whichever backend is selected.
    """

    formula: ClassVar[str] = r"""
        p = \operatorname{softmax}(\text{mask} + b + \operatorname{cap}(s\, q k^\top + c))
        y = p\, v
    """

    name: Literal["eager"] = "eager"

    def limitation(self, features: ScoreFeatures) -> str | None:
        return None

    def build(self) -> AttentionBackend:
        from gptkit.nn.attention.backends.eager import EagerBackend

        return EagerBackend()
