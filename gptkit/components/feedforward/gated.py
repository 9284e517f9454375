"""Gated feed-forwards: SwiGLU, GEGLU, ReGLU and others, by activation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gptkit.core.component import component, optional_component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.feedforward import FeedForward
    from gptkit.nn.stacked import StackedFeedForward

__all__ = ["GatedSpec"]


class GatedSpec(FeedForwardSpec):
    """Gated linear unit: the product of two projections, one activated. SwiGLU (`silu`), GEGLU (`gelu`), ReGLU (`relu`).

    Formula:
        y = output_scale · (W_down · (f(gate_scale · W_gate · x) ⊙ (W_up · x + up_offset)) + b_down)
        With `sparsity` s > 0, the gate g (after its scale) is replaced by relu(g − mean(g) − Φ⁻¹(s) · std(g)), over its
        features, so that about the share s of them is zero (statistical top-k, https://arxiv.org/abs/2506.06644).
        With `hidden_norm`, the product is normalized before the down-projection (BitNet; sub-LN, arXiv 2210.06423).
        With `up_softcap` s, W_up · x becomes s · tanh(W_up · x / s) before the offset is added.
        With `clamp` c, the gate is limited to at most c, and the up-projection to −c … c, before f and the product.

    Shapes:
        (B, T, d_model) → gate and up (B, T, 2·d_hidden), gate first → product (B, T, d_hidden) → (B, T, d_model)
        d_hidden = 8/3 · d_model, rounded up to a multiple of 64, unless given: as many weights as `mlp` with X = 4

    Paper:
        https://arxiv.org/abs/2002.05202
    """

    formula: ClassVar[str] = r"y = W_{\text{down}} \left(f(W_{\text{gate}} x) \odot W_{\text{up}} x\right)"

    takes_addition: ClassVar[bool] = True
    name: Literal["gated"] = "gated"
    activation: ActivationSpec = component("silu", description="Activation of the gate.")
    expansion: float | None = Field(
        None, description="Width of the hidden layer relative to d_model; 8/3 unless d_hidden is given.", gt=0
    )
    d_hidden: int | None = Field(
        None, description="Width of the hidden layer; expansion · d_model, rounded up, by default.", ge=1
    )
    multiple_of: int = Field(64, description="A computed d_hidden is rounded up to a multiple of this.", ge=1)
    bias: bool = Field(False, description="Whether the projections have biases.")
    dropout: float = Field(0.0, description="Share of hidden features dropped in training.", ge=0, lt=1)
    clamp: float | None = Field(None, description="Bound on gate and up before the product (gpt-oss: 7).", gt=0)
    up_softcap: float | None = Field(
        None, description="Soft bound on the up-projection: softcap · tanh(up / softcap) (Inkling 2: 25).", gt=0
    )
    up_offset: float = Field(0.0, description="Added to the ungated factor (gpt-oss: 1).")
    gate_scale: float = Field(1.0, description="Factor of the gate before the activation (Falcon-H1).")
    output_scale: float = Field(1.0, description="Factor of the output (Falcon-H1).")
    sparsity: float = Field(
        0.0, description="Share of a token's gate features that become zero, the smallest ones (Gemma 3n: 0.95).", ge=0, lt=1
    )
    hidden_norm: NormSpec | None = optional_component(
        description="Norm of the product, over all hidden features, before the down-projection (BitNet)."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"activation": "gelu-tanh", "expansion": 2, "multiple_of": 8},
        {"activation": "quick-gelu", "clamp": 7.0, "up_offset": 1.0, "bias": True},
        {"gate_scale": 0.5, "output_scale": 1.5},
        {"activation": "capped-silu", "up_softcap": 0.5},
        {"activation": "gelu-tanh", "sparsity": 0.7},
        {"activation": "relu-squared", "hidden_norm": "rms", "dropout": 0.1},
    )

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.expansion is not None and self.d_hidden is not None:
            raise ValueError("give either expansion or d_hidden, not both")
        return self

    def hidden(self, context: BuildContext) -> int:
        """Return the width of the hidden layer for this build context."""
        if self.d_hidden is not None:
            return self.d_hidden
        # In integer thirds, so that 8/3 of a multiple of three is exact.
        wanted = 8 * context.d_model / 3 if self.expansion is None else self.expansion * context.d_model
        return self.multiple_of * max(1, math.ceil(wanted / self.multiple_of))

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(expansion=None, d_hidden=self.hidden(context))

    def build(self, context: BuildContext) -> FeedForward:
        from gptkit.components.feedforward.modules.gated import Gated

        return Gated(self, context)

    def build_stacked(self, context: BuildContext, n_experts: int) -> StackedFeedForward | None:
        from gptkit.components.feedforward.modules.gated import StackedGated

        activation = self.activation.build(context)
        # Experts whose activation is learned, or that have a norm, have one each.
        if self.hidden_norm is not None or any(True for _ in activation.parameters()):
            return None
        return StackedGated(self, context, activation, n_experts)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.feedforward.written.dense import gated

        return gated(self, context)

    def written_stacked(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.feedforward.written.dense import gated_experts

        return gated_experts(self, context, n_experts)
