"""A feed-forward of one projection and an activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.feedforward import FeedForward

__all__ = ["SingleLayerSpec"]


class SingleLayerSpec(FeedForwardSpec):
    """One projection, then an activation: the layer before the output of BERT and ModernBERT.

    Formula:
        y = f(W · x + b)

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/1810.04805

    Notes:
        Before a head, it is the feed-forward of a last block `single-branch` with `branch: feedforward` and
        `shortcut: false`; the norm after it is the model's final norm.
    """

    formula: ClassVar[str] = r"y = f(W x + b)"

    name: Literal["single-layer"] = "single-layer"
    activation: ActivationSpec = component("gelu", description="Activation after the projection.")
    bias: bool = Field(True, description="Whether the projection has a bias.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"activation": "silu", "bias": False})

    def build(self, context: BuildContext) -> FeedForward:
        from gptkit.components.feedforward.modules.single_layer import SingleLayer

        return SingleLayer(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.feedforward.written.single_layer import single_layer

        return single_layer(self, context)
