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
    """Arrangement of one layer's attention, feed-forward and norms around the residual stream.

    The parts are ``context.parts``; a block builds them and determines the order of norms, dropout and residual connections.

    Declared capabilities:
        final_norm: a property, bool: whether a model with this as its last block needs a norm before its head; it has one
            unless the spec sets another. May depend on the block's fields.
    """

    kind: ClassVar[str] = "block"
    runtime: ClassVar[str] = "gptkit.nn.block:Block"

    @property
    def final_norm(self) -> bool:
        """Whether the block's output is not normalized, so that the model needs a norm before its head."""
        return True

    @abstractmethod
    def build(self, context: BuildContext) -> Block:
        """Return the module."""
