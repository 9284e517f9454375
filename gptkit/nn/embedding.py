"""The runtime contract of kind `embedding`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gptkit.nn.forward import Forward

__all__ = ["Embedding"]


class Embedding(nn.Module, ABC):
    """The runtime part of an embedding."""

    @property
    @abstractmethod
    def table_VE(self) -> nn.Parameter:
        """The weight that a tied head uses, (vocabulary, d_model); narrower where the embedding projects up to d_model."""

    @abstractmethod
    def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        """Map token ids (B, T) to vectors (B, T, d_model)."""
