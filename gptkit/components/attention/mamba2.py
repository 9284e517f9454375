"""`mamba2`: a state-space model with a state of fixed size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.mamba2 import Mamba2

__all__ = ["Mamba2Spec"]


class Mamba2Spec(AttentionSpec):
    """State-space model with a scalar decay per head and a recurrent state of fixed size (Mamba-2, Bamba, Granite 4).

    Formula:
        [z, v, k, q, Δ] = W_in x + b, each times its factor in `projection_scales`
        [v, k, q] ← f(conv([v, k, q]) + b_conv)
        Δ ← clamp(softplus(Δ + step_bias), step_min, step_max), one number per head; decay = exp(−exp(decay_log) · Δ)
        S ← decay · S + (Δ v) kᵀ;  y = S q + skip · v
        out = W_out norm(y ⊙ silu(z)), all heads together; with `norm: before`, W_out [norm(y) ⊙ silu(z)]

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state S (B, n_heads, d_head, d_state), and the last conv_width − 1 inputs of the convolution

    Paper:
        https://arxiv.org/abs/2405.21060

    Notes:
        v, k and q are x, B and C of the paper. Training and prompts are computed in chunks, decoding token by token: time
        and memory per token do not grow with the length of the text. The recurrence encodes the order of tokens, so such a
        layer accepts no relative position: set `position: none` for it.
    """

    formula: ClassVar[str] = r"""
        [z\ u\ \Delta] = W_{\text{in}} x + b \qquad [v\ k\ q] = f(\operatorname{conv}(u))
        \Delta \leftarrow \operatorname{softplus}(\Delta + b_\Delta) \qquad \alpha = e^{-e^{a} \Delta}
        S \leftarrow \alpha S + (\Delta v) k^\top \qquad y = S q + D v
        \text{out} = W_{\text{out}} \operatorname{norm}(y \odot \operatorname{silu}(z))
    """

    name: Literal["mamba2"] = "mamba2"
    accepts: ClassVar[frozenset[str]] = frozenset()

    n_heads: int | None = Field(None, ge=1, description="Number of heads; 2 · d_model / d_head by default.")
    d_head: int = Field(64, ge=1, description="Features of a head's value.")
    n_groups: int = Field(1, ge=1, description="Groups of heads with the same keys and queries, a divisor of n_heads.")
    d_state: int = Field(128, ge=1, description="Features of a key and of a query: the size of the state per value feature.")
    conv_width: int = Field(
        4, ge=1, description="Width of the convolution before the heads, in tokens, including the current one."
    )
    conv_bias: bool = Field(True, description="Whether the convolution has a bias.")
    bias: bool = Field(False, description="Whether the input and output projections have biases.")
    activation: ActivationSpec = component("silu", description="Activation after the convolution.")
    projection_scales: tuple[float, ...] | None = Field(
        None,
        min_length=5,
        max_length=5,
        description="Factors of the projected gates, values, keys, queries and step sizes, in this order (Falcon-H1).",
    )
    step_min: float = Field(0.0, ge=0, description="Smallest step size Δ; smaller ones are raised to it.")
    step_max: float | None = Field(None, gt=0, description="Largest step size Δ; unlimited by default.")
    norm: Literal["after", "before", "none"] = Field(
        "after", description="Where the RMS norm of the output is: after the gate, before it, or nowhere."
    )
    norm_groups: int | None = Field(
        None, ge=1, description="Groups of features that are normalized separately; n_groups by default."
    )
    eps: float = Field(1e-5, gt=0, description="Added to the mean square in the norm.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "d_head": 8, "d_state": 6},
        {"n_heads": 4, "d_head": 6, "n_groups": 2, "d_state": 5, "conv_width": 3, "bias": True, "norm": "before"},
        {"n_heads": 4, "d_head": 8, "d_state": 4, "norm": "none", "conv_bias": False, "step_min": 0.01, "step_max": 0.5},
        {"n_heads": 2, "d_head": 8, "d_state": 6, "projection_scales": [0.5, 1.5, 0.75, 1.25, 0.9]},
    )

    def resolved(self, context: BuildContext) -> Any:
        n_heads = self.n_heads or max(1, 2 * context.d_model // self.d_head)
        scales = None if self.projection_scales is None or set(self.projection_scales) == {1.0} else self.projection_scales
        return self.replace(n_heads=n_heads, norm_groups=self.norm_groups or self.n_groups, projection_scales=scales)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.n_heads is not None
        assert self.norm_groups is not None
        if self.n_heads % self.n_groups:
            yield Problem(
                ("n_groups",), f"{self.n_heads} heads cannot be distributed over {self.n_groups} groups; choose a divisor"
            )
        if self.norm != "none" and self.n_heads * self.d_head % self.norm_groups:
            yield Problem(
                ("norm_groups",),
                f"{self.n_heads * self.d_head} features cannot be divided into {self.norm_groups} groups; choose a divisor",
            )
        if self.step_max is not None and self.step_max <= self.step_min:
            yield Problem(("step_max",), f"should be larger than step_min, {self.step_min:g}; choose a larger one")

    def build(self, context: BuildContext) -> Mamba2:
        from gptkit.components.attention.modules.mamba2 import Mamba2

        return Mamba2(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.recurrent import mamba2

        return mamba2(self, context)
