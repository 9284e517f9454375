"""The runtime contract of kind `router`.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gptkit.nn.forward import Forward

__all__ = ["Router"]


class Router(nn.Module, ABC):
    """The runtime part of a router."""

    @abstractmethod
    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the experts of every token, (N, K) distinct integers below X, and their weights, (N, K).

        Weights have the dtype of `x_NE`. In training, a router adds auxiliary losses by ``forward.add_loss``.

        Args:
            valid_N: False for padding, which is routed too but excluded from losses; None without padding.
        """
