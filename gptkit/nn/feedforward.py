"""The runtime contract of kind `feedforward`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gptkit.nn.forward import Forward

__all__ = ["FeedForward"]


class FeedForward(nn.Module, ABC):
    """The runtime part of a feed-forward."""

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Map (B, T, d_model) to (B, T, d_model)."""
