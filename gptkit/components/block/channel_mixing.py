"""Block of RWKV-4: the feed-forward reads mixtures of two tokens, and its output has a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["ChannelMixingSpec"]


class ChannelMixingSpec(BlockSpec):
    """Pre-norm block whose feed-forward reads each token mixed with the previous one and has a receptance gate (RWKV-4).

    Formula:
        x ← x + dropout(attention(norm(x)))
        u = norm(x);  u_c = μ_c ⊙ u_t + (1 − μ_c) ⊙ u_{t−1} for each of c = k, r, with u = 0 before the first token
        x ← x + dropout(σ(W_r u_r) ⊙ feedforward(u_k))

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        μ (2, d_model), W_r (d_model, d_model); cache: the last u, d_model values per row

    Paper:
        https://arxiv.org/abs/2305.13048

    Notes:
        RWKV-4 has the feed-forward `{name: mlp, activation: relu-squared, bias: false}` and the attention `rwkv4`. μ is
        initially (i / d_model)^(1 − l / n_layers) for feature i of layer l, so early layers and first features mix more.
    """

    formula: ClassVar[str] = r"""
        x \leftarrow x + \operatorname{attention}(\operatorname{norm}(x)) \qquad u = \operatorname{norm}(x)
        u_c = \mu_c \odot u_t + (1 - \mu_c) \odot u_{t-1} \qquad
        x \leftarrow x + \sigma(W_r u_r) \odot \operatorname{feedforward}(u_k)
    """

    name: Literal["channel-mixing"] = "channel-mixing"
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)

    @property
    def wiring(self) -> tuple[Step, ...]:
        mixed = ("norm", "mixture with the previous token", "feedforward", "receptance gate")
        return (Step((("norm", "attention"),)), Step((mixed,)))

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.channel_mixing import ChannelMixing

        return ChannelMixing(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.channel_mixing import channel_mixing

        return channel_mixing(self, context)
