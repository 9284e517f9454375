"""`lightning`: linear attention with a constant decay per head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.lightning import Lightning

__all__ = ["LightningSpec"]


class LightningSpec(AttentionSpec):
    """Linear attention with a constant decay per head and a recurrent state of fixed size (Lightning Attention, MiniMax-01).

    Formula:
        q, k, v = f(W_qkv x), head by head
        S ← λ_h S + k vᵀ;  o_h = Sᵀ q
        λ_h = exp(−slope_h),  slope_h = 2^(−8 h / n_heads), h from 1 on
        With `slower_in_later_layers`: slope_h · (1 − l / (n_layers − 1 + 1e-5) + 1e-5) in layer l, counted from 0
        y = W_o (σ(W_g x) ⊙ norm([o_1 … o_H])), the norm over all heads together

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        state S (B, n_heads, d_head, d_head)

    Paper:
        https://arxiv.org/abs/2501.08313

    Notes:
        The chunks are those of Lightning Attention-2 (arXiv 2401.04658): training and prompts are computed in chunks of
        tokens, decoding token by token, so time and memory per token do not grow with the length of the text. The decays are
        constants, not weights. They encode the order of tokens, so such a layer accepts no relative position: set
        `position: none` for it.
    """

    formula: ClassVar[str] = r"""
        [q\ k\ v] = f(W_{qkv} x) \qquad S \leftarrow \lambda_h S + k v^\top \qquad o_h = S^\top q
        \lambda_h = e^{-2^{-8h/n_h} \left(1 - \frac{l}{n_l - 1} + 10^{-5}\right)}
        y = W_o \left(\sigma(W_g x) \odot \operatorname{norm}([o_1 \dots o_H])\right)
    """

    name: Literal["lightning"] = "lightning"
    accepts: ClassVar[frozenset[str]] = frozenset()

    n_heads: int | None = Field(
        None, ge=1, description="Number of heads; by default, the number that gives a head size of 64."
    )
    d_head: int | None = Field(
        None, ge=1, description="Features of a query, a key and a value; d_model / n_heads by default."
    )
    activation: ActivationSpec = component("silu", description="Activation of queries, keys and values.")
    slower_in_later_layers: bool = Field(
        True, description="Decrease the slopes with the layer's index, so that later layers decay more slowly."
    )
    norm: NormSpec = component("rms", description="Norm of the outputs of all heads together.")
    output_gate: bool = Field(True, description="Multiply the normalized output by a sigmoid gate computed from the input.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "d_head": 8},
        {"n_heads": 3, "d_head": 6, "activation": "gelu", "norm": "none", "output_gate": False},
        {"n_heads": 2, "d_head": 10, "slower_in_later_layers": False, "norm": "layer"},
    )

    def resolved(self, context: BuildContext) -> Any:
        n_heads = self.n_heads or max(1, context.d_model // (self.d_head or 64))
        return self.replace(n_heads=n_heads, d_head=self.d_head or max(1, context.d_model // n_heads))

    def head_shape(self) -> HeadShape:
        """Return the number and size of heads of the resolved spec."""
        assert self.n_heads is not None
        assert self.d_head is not None
        return HeadShape(self.n_heads, self.n_heads, self.d_head)

    def slopes(self, context: BuildContext) -> list[float]:
        """Return the negative logarithm of each head's decay in the layer of the context."""
        n_heads = self.head_shape().n_heads
        factor = self.slope_factor(context) if self.slower_in_later_layers else 1.0
        return [factor * 2.0 ** (-8 * (head + 1) / n_heads) for head in range(n_heads)]

    @staticmethod
    def slope_factor(context: BuildContext) -> float:
        """Return the factor of the slopes with `slower_in_later_layers` in the layer of the context."""
        # The small constants are those of the released models' code. The blocks of a head follow the last layer.
        return max(0.0, 1 - context.parts.index / (context.n_layers - 1 + 1e-5)) + 1e-5

    def build(self, context: BuildContext) -> Lightning:
        from gptkit.components.attention.modules.lightning import Lightning

        return Lightning(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.lightning import lightning

        return lightning(self, context)
