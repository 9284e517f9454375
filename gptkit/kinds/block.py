"""Kind `block`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.forward import Forward
from gptkit.spec import Component

__all__ = ["Block", "BlockSpec"]


class Block(nn.Module, ABC):
    """The runtime part of a block."""

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """(B, T, d_model) to (B, T, d_model)."""


class BlockSpec(Component):
    """Joins one layer's attention, feed-forward and norms around the residual stream (the shortcut).

    The parts are ``context.parts``; a block builds them and decides where norms, dropout and shortcuts go.

    Declared capabilities:
        final_norm: whether a model of such blocks needs a norm before its head, which it gets unless the spec says
            otherwise.
    """

    kind: ClassVar[str] = "block"
    final_norm: ClassVar[bool] = True

    @abstractmethod
    def build(self, context: BuildContext) -> Block:
        """The module."""
