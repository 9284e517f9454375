"""Kind `feedforward`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.forward import Forward
from gptkit.spec import Component

__all__ = ["FeedForward", "FeedForwardSpec"]


class FeedForward(nn.Module, ABC):
    """The runtime part of a feed-forward."""

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """(B, T, d_model) to (B, T, d_model)."""


class FeedForwardSpec(Component):
    """What a block applies to every token by itself.

    The output at a position depends on the input at that position only (and on token ids and losses through
    `forward`, for components that say so). A feed-forward may contain feed-forwards (experts).
    """

    kind: ClassVar[str] = "feedforward"

    @abstractmethod
    def build(self, context: BuildContext) -> FeedForward:
        """The module, for context.d_model features."""
