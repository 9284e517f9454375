"""The runtime contract of kind `head`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["IGNORED", "Head"]


IGNORED = -100
"""A target with this value takes no part in the loss, as in torch's cross_entropy."""


class Head(nn.Module, ABC):
    """The runtime part of a head."""

    @abstractmethod
    def forward(self, x_BTE: Tensor) -> Tensor:
        """(B, T, d_model) to logits (B, T, vocabulary)."""

    @abstractmethod
    def loss(self, x_BTE: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean cross-entropy in nats over targets that are not `IGNORED`, a scalar in fp32.

        Without holding the logits of all tokens at once.
        """
