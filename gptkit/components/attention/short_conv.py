"""`short-conv`: a gated convolution over a few tokens in place of attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.short_conv import ShortConv

__all__ = ["ShortConvSpec"]


class ShortConvSpec(AttentionSpec):
    """Double-gated causal convolution over a few tokens, feature by feature (LFM2).

    Formula:
        [b, c, x] = W_in h + bias;  u = b ⊙ x
        y = W_out (c ⊙ Σ_i w_i ⊙ u_{t−i}) + bias,  i from 0 to width − 1

    Shapes:
        (B, T, d_model) → (B, T, d_model); state: the last width − 1 vectors u

    Paper:
        https://arxiv.org/abs/2511.23404

    Notes:
        It mixes neighboring tokens only; models alternate it with layers of attention. Time and memory per token do not grow
        with the length of the text. The convolution encodes the order of tokens, so such a layer accepts no relative
        position: set `position: none` for it.
    """

    formula: ClassVar[str] = r"""
        [b\ c\ x] = W_{\text{in}} h \qquad u = b \odot x
        y_t = W_{\text{out}} \left(c_t \odot \sum_{i=0}^{w-1} w_i \odot u_{t-i}\right)
    """

    name: Literal["short-conv"] = "short-conv"
    accepts: ClassVar[frozenset[str]] = frozenset()

    width: int = Field(3, ge=1, description="Width of the convolution in tokens, including the current one.")
    bias: bool = Field(False, description="Whether the projections and the convolution have biases.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"width": 5, "bias": True})

    def build(self, context: BuildContext) -> ShortConv:
        from gptkit.components.attention.modules.short_conv import ShortConv

        return ShortConv(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.recurrent import short_conv

        return short_conv(self, context)
