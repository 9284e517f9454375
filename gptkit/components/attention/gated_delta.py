"""`gated-delta`: linear attention with a state of fixed size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.gated_delta import GatedDelta

__all__ = ["GatedDeltaSpec"]


class GatedDeltaSpec(AttentionSpec):
    """Linear attention by the gated delta rule, with a recurrent state of fixed size (Gated DeltaNet, Qwen3-Next).

    Formula:
        q, k, v = silu(conv(W_qkv x));  q ← q / (‖q‖ · √d_key),  k ← k / ‖k‖;  z = W_z x
        decay = exp(−exp(decay_log) · softplus(W_a x + decay_bias)),  β = σ(W_b x), one number per value head
        With `negative_eigenvalues`: β = 2 σ(W_b x)
        S ← decay · S;  S ← S + k (β (v − Sᵀ k))ᵀ;  y = W_o [norm(Sᵀ q) ⊙ silu(z)], all heads together

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state S (B, n_value_heads, d_key, d_value), and the last conv_width − 1 inputs of the convolution

    Paper:
        https://arxiv.org/abs/2412.06464

    Notes:
        Time and memory per token do not grow with the length of the text. The recurrence encodes the order of tokens, so
        such a layer accepts no relative position: set `position: none` for it.
    """

    formula: ClassVar[str] = r"""
        [q\ k\ v] = \operatorname{silu}(\operatorname{conv}(W_{qkv} x)) \qquad z = W_z x
        q \leftarrow \frac{q}{\|q\| \sqrt{d_k}} \qquad k \leftarrow \frac{k}{\|k\|}
        \alpha = e^{-e^{a} \operatorname{softplus}(W_a x + b)} \qquad \beta = \sigma(W_b x)
        S \leftarrow \alpha S \qquad S \leftarrow S + k (\beta (v - S^\top k))^\top
        y = W_o (\operatorname{norm}(S^\top q) \odot \operatorname{silu}(z))
    """

    name: Literal["gated-delta"] = "gated-delta"
    accepts: ClassVar[frozenset[str]] = frozenset()

    n_heads: int | None = Field(None, ge=1, description="Number of query and key heads; d_model / d_key by default.")
    n_value_heads: int | None = Field(
        None, ge=1, description="Number of value heads, a multiple of n_heads, each with its own state; n_heads by default."
    )
    d_key: int = Field(64, ge=1, description="Features of a query and of a key.")
    d_value: int = Field(64, ge=1, description="Features of a value.")
    conv_width: int = Field(
        4, ge=1, description="Width of the convolution before the heads, in tokens, including the current one."
    )
    negative_eigenvalues: bool = Field(
        False, description="Double β, so that a step can reverse a direction of the state (arXiv 2411.12537; OLMo Hybrid)."
    )
    norm: NormSpec = component("rms", description="Norm of each head's output, before its gate.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "d_key": 8, "d_value": 8},
        {"n_heads": 2, "n_value_heads": 4, "d_key": 6, "d_value": 10, "conv_width": 3, "negative_eigenvalues": True},
    )

    def resolved(self, context: BuildContext) -> Any:
        n_heads = self.n_heads or max(1, context.d_model // self.d_key)
        return self.replace(n_heads=n_heads, n_value_heads=self.n_value_heads or n_heads)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.n_heads is not None
        assert self.n_value_heads is not None
        if self.n_value_heads % self.n_heads:
            yield Problem(
                ("n_value_heads",),
                f"{self.n_value_heads} value heads cannot be distributed over {self.n_heads} heads; choose a multiple",
            )

    def build(self, context: BuildContext) -> GatedDelta:
        from gptkit.components.attention.modules.gated_delta import GatedDelta

        return GatedDelta(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.recurrent import gated_delta

        return gated_delta(self, context)
