"""`kimi-delta`: linear attention with a decay of every key feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.kimi_delta import KimiDelta

__all__ = ["KimiDeltaSpec"]


class KimiDeltaSpec(AttentionSpec):
    """Kimi Delta Attention (KDA): the gated delta rule with a decay of every key feature (Kimi Linear, Ling 3).

    Formula:
        q, k, v = silu(conv(W_qkv x));  q ← q / (‖q‖ · √d_key),  k ← k / ‖k‖;  z = W_z x
        g = −exp(decay_log) · softplus(W_a x + decay_bias), one number per key feature; decay_log one per head
        With `decay_floor` c: g = c · σ(exp(decay_log) · (W_a x + decay_bias))
        S ← diag(exp(g)) · S;  S ← S + k (σ(W_b x) · (v − Sᵀ k))ᵀ
        y = W_o [norm(Sᵀ q) ⊙ σ(z)], all heads together
        With `decay_rank` or `gate_rank`, W_a or W_z is a product of two matrices of that inner width.

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state S (B, n_heads, d_key, d_value), and the last conv_width − 1 inputs of the convolution

    Paper:
        https://arxiv.org/abs/2510.26692

    Notes:
        `gated-delta` has one decay per head. Time and memory per token do not grow with the length of the text. The
        recurrence encodes the order of tokens, so such a layer accepts no relative position: set `position: none` for it.
    """

    formula: ClassVar[str] = r"""
        [q\ k\ v] = \operatorname{silu}(\operatorname{conv}(W_{qkv} x)) \qquad z = W_z x
        q \leftarrow \frac{q}{\|q\| \sqrt{d_k}} \qquad k \leftarrow \frac{k}{\|k\|}
        g = -e^{a} \operatorname{softplus}(W_a x + b)
        S \leftarrow \operatorname{diag}(e^g) S \qquad S \leftarrow S + k (\sigma(W_b x) (v - S^\top k))^\top
        y = W_o (\operatorname{norm}(S^\top q) \odot \sigma(z))
    """

    name: Literal["kimi-delta"] = "kimi-delta"
    accepts: ClassVar[frozenset[str]] = frozenset()

    n_heads: int | None = Field(None, ge=1, description="Number of heads; d_model / d_key by default.")
    d_key: int = Field(64, ge=1, description="Features of a query and of a key.")
    d_value: int = Field(64, ge=1, description="Features of a value.")
    conv_width: int = Field(
        4, ge=1, description="Width of the convolution before the heads, in tokens, including the current one."
    )
    decay_rank: int | None = Field(
        None,
        ge=1,
        description="Width of the latent that decays are projected from; by default, they are projected directly.",
    )
    gate_rank: int | None = Field(
        None,
        ge=1,
        description="Width of the latent that output gates are projected from; by default, they are projected directly.",
    )
    decay_floor: float | None = Field(
        None, lt=0, description="Lower bound of the logarithm of a decay, which is then a sigmoid (Ling 3: −5)."
    )
    norm: NormSpec = component("rms", description="Norm of each head's output, before its gate.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "d_key": 8, "d_value": 8, "decay_rank": 6, "gate_rank": 5},
        {"n_heads": 3, "d_key": 6, "d_value": 10, "conv_width": 3, "decay_floor": -5.0},
    )

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(n_heads=self.n_heads or max(1, context.d_model // self.d_key))

    def build(self, context: BuildContext) -> KimiDelta:
        from gptkit.components.attention.modules.kimi_delta import KimiDelta

        return KimiDelta(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.kimi_delta import kimi_delta

        return kimi_delta(self, context)
