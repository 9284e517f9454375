"""Kind `embedding`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.forward import Forward
from gptkit.spec import Component

__all__ = ["Embedding", "EmbeddingSpec"]


class Embedding(nn.Module, ABC):
    """The runtime part of an embedding."""

    @property
    @abstractmethod
    def table_VE(self) -> nn.Parameter:
        """The weight that a tied head uses, (vocabulary, d_model); narrower where the embedding projects up to d_model."""

    @abstractmethod
    def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        """(B, T) token ids to (B, T, d_model)."""


class EmbeddingSpec(Component):
    """Turns token ids into vectors, and applies the absolute part of the model's position (``context.position``)."""

    kind: ClassVar[str] = "embedding"

    @abstractmethod
    def build(self, context: BuildContext) -> Embedding:
        """The module, for context.vocab_size ids and context.d_model features."""
