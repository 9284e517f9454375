"""`mamba1`: a selective state-space model with a state of fixed size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.mamba1 import Mamba1

__all__ = ["Mamba1Spec"]


class Mamba1Spec(AttentionSpec):
    """Selective state-space model whose features decay at rates of their own (Mamba, Falcon-Mamba, Jamba).

    Formula:
        [v, z] = W_in x + b
        v ← f(conv(v) + b_conv)
        [r, k, q] = W_select v, each normalized
        Δ = softplus(W_step r + step_bias), one number per feature of v
        S ← exp(−exp(decay_log) Δ) ⊙ S + (Δ v) kᵀ;  y = S q + skip · v
        out = W_out (y ⊙ silu(z)) + b

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state S (B, d_inner, d_state), and the last conv_width − 1 inputs of the convolution

    Paper:
        https://arxiv.org/abs/2312.00752

    Notes:
        v, k and q are x, B and C of the paper. Training and prompts are computed in chunks, decoding token by token: time
        and memory per token do not grow with the length of the text. `mamba2` has one decay per head in place of one per
        feature and state feature, and needs fewer operations. The recurrence encodes the order of tokens, so such a layer
        accepts no relative position: set `position: none` for it.
    """

    formula: ClassVar[str] = r"""
        [v\ z] = W_{\text{in}} x \qquad v \leftarrow f(\operatorname{conv}(v)) \qquad [r\ k\ q] = W_{\text{select}} v
        \Delta = \operatorname{softplus}(W_\Delta\, r + b_\Delta) \qquad
        S \leftarrow e^{-e^{a} \Delta} \odot S + (\Delta v) k^\top
        \text{out} = W_{\text{out}} \left((S q + D v) \odot \operatorname{silu}(z)\right)
    """

    name: Literal["mamba1"] = "mamba1"
    accepts: ClassVar[frozenset[str]] = frozenset()

    d_inner: int | None = Field(None, ge=1, description="Features of the values v; 2 · d_model by default.")
    d_state: int = Field(16, ge=1, description="Features of a key and of a query: the size of the state per value feature.")
    step_rank: int | None = Field(
        None, ge=1, description="Features r from which the step sizes are computed; d_model / 16, rounded up, by default."
    )
    conv_width: int = Field(4, ge=1, description="Width of the convolution of the values, in tokens, with the current one.")
    conv_bias: bool = Field(True, description="Whether the convolution has a bias.")
    bias: bool = Field(False, description="Whether the input and output projections have biases.")
    activation: ActivationSpec = component("silu", description="Activation after the convolution.")
    norm: NormSpec = component("none", description="Norm of r, of the keys and of the queries, each with its own weight.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"d_inner": 20, "d_state": 6, "step_rank": 3},
        {"d_inner": 24, "d_state": 4, "step_rank": 5, "conv_width": 3, "bias": True, "norm": "rms"},
        {"d_inner": 16, "d_state": 5, "conv_bias": False, "activation": "gelu", "norm": {"name": "rms", "scale": False}},
    )

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(
            d_inner=self.d_inner or 2 * context.d_model, step_rank=self.step_rank or math.ceil(context.d_model / 16)
        )

    def build(self, context: BuildContext) -> Mamba1:
        from gptkit.components.attention.modules.mamba1 import Mamba1

        return Mamba1(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.mamba1 import mamba1

        return mamba1(self, context)
