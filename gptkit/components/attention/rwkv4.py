"""`rwkv4`: averages of values with exponential weights that decay from token to token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.rwkv4 import Rwkv4

__all__ = ["Rwkv4Spec"]


class Rwkv4Spec(AttentionSpec):
    """Time mixing of RWKV-4: each feature is an average of earlier values, weighted by exp(key) and a decay of its own.

    Formula:
        x_c = μ_c ⊙ x_t + (1 − μ_c) ⊙ x_{t−1} for each of c = k, v, r
        k = W_k x_k,  v = W_v x_v,  r = σ(W_r x_r)
        y = (a + exp(bonus + k) v) / (b + exp(bonus + k))
        a ← exp(−exp(decay)) a + exp(k) v;  b ← exp(−exp(decay)) b + exp(k)
        out = W_o (r ⊙ y)

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state a, b and m (B, d_inner) each, and the last token's input, d_model values per row

    Paper:
        https://arxiv.org/abs/2305.13048

    Notes:
        a and b are stored divided by exp(m), m ← max(m − exp(decay), k), so that exp(k) does not overflow. Training and
        prompts are computed in chunks, decoding token by token: time and memory per token do not grow with the length of the
        text. A whole RWKV-4 has this attention, the block `channel-mixing`, the feed-forward
        `{name: mlp, activation: relu-squared, bias: false}`, and layer norms, one of them after the embedding. The
        recurrence encodes the order of tokens, so such a layer accepts no relative position: set `position: none` for it.
    """

    formula: ClassVar[str] = r"""
        y = \frac{a + e^{u + k} v}{b + e^{u + k}} \qquad
        a \leftarrow e^{-e^{w}} a + e^{k} v \qquad b \leftarrow e^{-e^{w}} b + e^{k}
        \text{out} = W_o \left(\sigma(r) \odot y\right)
    """

    name: Literal["rwkv4"] = "rwkv4"
    accepts: ClassVar[frozenset[str]] = frozenset()

    d_inner: int | None = Field(None, ge=1, description="Features of keys, values and the state; d_model by default.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"d_inner": 20}, {})

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(d_inner=self.d_inner or context.d_model)

    def build(self, context: BuildContext) -> Rwkv4:
        from gptkit.components.attention.modules.rwkv4 import Rwkv4

        return Rwkv4(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.rwkv4 import rwkv4

        return rwkv4(self, context)
