"""The runtime contract of kind `head`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["IGNORED", "Head"]


IGNORED = -100
"""A target with this value takes no part in the loss, as in torch's cross_entropy."""


class Head(nn.Module, ABC):
    """The runtime part of a head."""

    @property
    def tied_weights(self) -> Mapping[str, str]:
        """Weights that the head shares with the embedding: the name each would have in the head, and its name there.

        The embedding owns the parameter. External files may store it under both names.
        """
        return {}

    @abstractmethod
    def forward(self, x_BTE: Tensor) -> Tensor:
        """(B, T, d_model) to logits (B, T, vocabulary)."""

    @abstractmethod
    def loss(self, x_BTE: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean cross-entropy in nats over targets that are not `IGNORED`, a scalar in fp32.

        Without holding the logits of all tokens at once.
        """
