"""The runtime contract of kind `feedforward`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from gptkit.nn.forward import Forward
from gptkit.nn.tensor_parallel import TensorParallel

__all__ = ["FeedForward"]


class FeedForward(TensorParallel, ABC):
    """The runtime part of a feed-forward."""

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Map (B, T, d_model) to (B, T, d_model)."""
