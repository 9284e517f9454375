"""Kind `head`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import Embedding
from gptkit.spec import Component

__all__ = ["IGNORED", "Head", "HeadSpec"]

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


class HeadSpec(Component):
    """Turns the last hidden vectors into a score for every token of the vocabulary, and scores into a loss."""

    kind: ClassVar[str] = "head"

    @abstractmethod
    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        """The module. `embedding` lends its table to a tied head."""
