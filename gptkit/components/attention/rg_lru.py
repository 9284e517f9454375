"""`rg-lru`: a gated linear recurrence with a state of one number per feature."""

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
    from gptkit.components.attention.modules.rg_lru import RgLru

__all__ = ["RgLruSpec"]


class RgLruSpec(AttentionSpec):
    """Real-gated linear recurrent unit: each feature is a moving average whose decay depends on the token (Griffin).

    Formula:
        [u, g] = W_in x + b;  u ← conv(u) + b_conv
        r = σ(W_r u + b_r),  i = σ(W_i u + b_i), block by block of features
        a = exp(−c · r · softplus(decay)), c = 8
        h ← a ⊙ h + √(1 − a²) ⊙ i ⊙ u;  for the first token of a text h = i ⊙ u
        out = W_out (h ⊙ f(g)) + b

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state h (B, d_inner), and the last conv_width − 1 inputs of the convolution
        W_r, W_i (n_heads, d_inner / n_heads, d_inner / n_heads)

    Paper:
        https://arxiv.org/abs/2402.19427

    Notes:
        Training and prompts are computed in chunks, decoding token by token: time and memory per token do not grow with the
        length of the text, and the state is the smallest of all recurrences here. The factor √(1 − a²) keeps the size of h.
        The recurrence encodes the order of tokens, so such a layer accepts no relative position: set `position: none`.
    """

    formula: ClassVar[str] = r"""
        [u\ g] = W_{\text{in}} x \qquad u \leftarrow \operatorname{conv}(u) \qquad
        r = \sigma(W_r u) \quad i = \sigma(W_i u) \qquad a = e^{-c\, r \odot \operatorname{softplus}(\lambda)}
        h \leftarrow a \odot h + \sqrt{1 - a^2} \odot i \odot u \qquad
        \text{out} = W_{\text{out}} \left(h \odot f(g)\right)
    """

    name: Literal["rg-lru"] = "rg-lru"
    accepts: ClassVar[frozenset[str]] = frozenset()

    d_inner: int | None = Field(None, ge=1, description="Features of the state; d_model by default.")
    n_heads: int = Field(
        1, ge=1, description="Blocks of features whose gates depend on the features of the same block; a divisor of d_inner."
    )
    conv_width: int = Field(4, ge=1, description="Width of the convolution, in tokens, the current one included.")
    bias: bool = Field(True, description="Whether the input and output projections have biases.")
    activation: ActivationSpec = component("gelu-tanh", description="Activation f of the output gate g.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "d_inner": 12},
        {"n_heads": 4, "d_inner": 20, "conv_width": 3, "bias": False, "activation": "silu"},
    )

    @property
    def depends_on_position(self) -> bool:
        return True  # the first token of a text has no factor √(1 − a²)

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(d_inner=self.d_inner or context.d_model)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.d_inner is not None
        if self.d_inner % self.n_heads:
            yield Problem(
                ("n_heads",), f"{self.d_inner} features cannot be divided into {self.n_heads} blocks; choose a divisor"
            )

    def build(self, context: BuildContext) -> RgLru:
        from gptkit.components.attention.modules.rg_lru import RgLru

        return RgLru(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.rg_lru import rg_lru

        return rg_lru(self, context)
