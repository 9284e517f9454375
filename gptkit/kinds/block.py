"""Kind `block`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["BlockSpec"]


class BlockSpec(Component):
    """Joins one layer's attention, feed-forward and norms around the residual stream (the shortcut).

    The parts are ``context.parts``; a block builds them and decides where norms, dropout and shortcuts go.

    Declared capabilities:
        final_norm: whether a model of such blocks needs a norm before its head, which it gets unless the spec says
            otherwise.
    """

    kind: ClassVar[str] = "block"
    runtime: ClassVar[str] = "gptkit.nn.block:Block"
    final_norm: ClassVar[bool] = True

    @abstractmethod
    def build(self, context: BuildContext) -> Block:
        """The module."""
