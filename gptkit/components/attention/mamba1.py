"""`mamba1`: a selective state-space model with a state of fixed size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.mamba1 import Mamba1

__all__ = ["Mamba1Spec"]


class Mamba1Spec(AttentionSpec):
    """Selective state-space model whose features decay at rates of their own (Mamba, Falcon-Mamba, Jamba, Zamba).

    Formula:
        [v, z] = W_in x + b
        v ← f(conv(v) + b_conv)
        for each head h, a slice of the features:
            [r, k, q] = W_select,h v_h, each normalized
            Δ = softplus(W_step,h r + step_bias_h), one number per feature of v_h
            S_h ← exp(−exp(decay_log_h) Δ) ⊙ S_h + (Δ v_h) kᵀ;  y_h = S_h q + skip_h · v_h
        out = W_out (y ⊙ silu(z)) + b

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state S (B, d_inner, d_state), and the last conv_width − 1 inputs of the convolution
        with several heads: W_select (n_heads, step_rank + 2 · d_state, d_inner / n_heads),
        W_step (n_heads, d_inner / n_heads, step_rank)

    Paper:
        https://arxiv.org/abs/2312.00752; several heads: https://arxiv.org/abs/2405.16712

    Notes:
        v, k and q are x, B and C of the paper. Training and prompts are computed in chunks, decoding token by token: time
        and memory per token do not grow with the length of the text. `mamba2` has one decay per head in place of one per
        feature and state feature, and needs fewer operations. The recurrence encodes the order of tokens, so such a layer
        accepts no relative position: set `position: none` for it. With several heads, step sizes, keys and queries of a head
        depend on its values alone, at the same number of parameters; the weights of the norm are those of all heads. The
        matrices of heads are one tensor, which neither adapters nor a precision change.
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
    n_heads: int = Field(
        1, ge=1, description="Heads of values, with step sizes, keys and queries of their own; a divisor of d_inner."
    )
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
        {"d_inner": 18, "n_heads": 3, "d_state": 4, "step_rank": 5, "norm": "rms"},
    )

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(
            d_inner=self.d_inner or 2 * context.d_model, step_rank=self.step_rank or math.ceil(context.d_model / 16)
        )

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.d_inner is not None
        if self.d_inner % self.n_heads:
            yield Problem(
                ("n_heads",), f"{self.d_inner} features cannot be divided into {self.n_heads} heads; choose a divisor"
            )

    def build(self, context: BuildContext) -> Mamba1:
        from gptkit.components.attention.modules.mamba1 import Mamba1

        return Mamba1(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.mamba1 import mamba1

        return mamba1(self, context)
