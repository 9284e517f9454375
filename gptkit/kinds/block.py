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
        final_norm: a property, bool: whether a model whose last block this is needs a norm before its head; it gets one
            unless the spec says otherwise. May depend on the block's fields.
    """

    kind: ClassVar[str] = "block"
    runtime: ClassVar[str] = "gptkit.nn.block:Block"

    @property
    def final_norm(self) -> bool:
        """Whether the block's output is left without a norm, so that the model needs one before its head."""
        return True

    @abstractmethod
    def build(self, context: BuildContext) -> Block:
        """The module."""
