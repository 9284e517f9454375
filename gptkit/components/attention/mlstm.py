"""`mlstm`: linear attention with exponential gates and a normalized state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.mlstm import MLstm

__all__ = ["MLstmSpec"]


class MLstmSpec(AttentionSpec):
    """Matrix memory with an exponential input gate and a forget gate per head (mLSTM of xLSTM).

    Formula:
        [q, k, v, o] = W x, head by head;  [i, f] = softcap(W_g x + b_g), one number per head
        C ← σ(f) C + exp(i) k vᵀ;  n ← σ(f) n + exp(i) k
        h = Cᵀ q / (max(|n·q|, 1) + eps), with q divided by √d_key
        out = W_o (σ(o) ⊙ norm(h)), each head normalized by itself

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state C (B, n_heads, d_key, d_value), n (B, n_heads, d_key) and m (B, n_heads)

    Paper:
        https://arxiv.org/abs/2503.13427

    Notes:
        C and n are stored divided by exp(m), m ← max(log σ(f) + m, i), so that exp(i) does not overflow; eps applies to
        these. Training and prompts are computed in chunks, decoding token by token: time and memory per token do not grow
        with the length of the text. The gates encode the order of tokens, so such a layer accepts no relative position: set
        `position: none` for it.
    """

    formula: ClassVar[str] = r"""
        C \leftarrow \sigma(f)\, C + e^{i}\, k v^\top \qquad n \leftarrow \sigma(f)\, n + e^{i}\, k \qquad
        h = \frac{C^\top q}{\max(|n^\top q|, 1)}
        \text{out} = W_o \left(\sigma(o) \odot \operatorname{norm}(h)\right)
    """

    name: Literal["mlstm"] = "mlstm"
    accepts: ClassVar[frozenset[str]] = frozenset()

    n_heads: int = Field(4, ge=1, description="Number of heads.")
    d_key: int | None = Field(
        None, ge=1, description="Features of a query and of a key of a head; d_model / (2 · n_heads) by default."
    )
    d_value: int | None = Field(None, ge=1, description="Features of a value of a head; d_model / n_heads by default.")
    gate_softcap: float | None = Field(
        15.0, gt=0, description="Bound of the gates' exponents, c · tanh(z / c); None for no bound."
    )
    norm: Literal["layer", "rms", "none"] = Field(
        "layer", description="Norm of each head's output, with a weight for each feature of all heads."
    )
    norm_eps: float = Field(1e-6, gt=0, description="Added to the variance or the mean square in the norm.")
    eps: float = Field(1e-6, gt=0, description="Added to the denominator.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "d_key": 6, "d_value": 8},
        {"n_heads": 3, "d_key": 4, "d_value": 5, "norm": "rms", "gate_softcap": None},
        {"n_heads": 1, "d_key": 5, "d_value": 10, "norm": "none", "gate_softcap": 4.0, "eps": 0.01},
    )

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(
            d_key=self.d_key or max(1, context.d_model // (2 * self.n_heads)),
            d_value=self.d_value or max(1, context.d_model // self.n_heads),
        )

    def build(self, context: BuildContext) -> MLstm:
        from gptkit.components.attention.modules.mlstm import MLstm

        return MLstm(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.mlstm import mlstm

        return mlstm(self, context)
