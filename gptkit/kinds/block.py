"""Kind `block`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["BlockSpec", "Step"]


@dataclass(frozen=True)
class Step:
    """One addition to the residual stream, for diagrams: branches that read it, and whose sum returns to it.

    Attributes:
        branches: the parts of each branch in their order, of ``norm``, ``attention`` and ``feedforward``.
        before: parts through which all branches read the stream.
        after: whether the sum is normalized, on the residual stream.
        shortcut: whether the branches are added to the stream; otherwise they replace it.
        factor: name of the field whose value multiplies the branches; empty if none does.
        shortcut_factor: name of the field whose value multiplies the stream before the addition.
    """

    branches: tuple[tuple[str, ...], ...]
    before: tuple[str, ...] = ()
    after: bool = False
    shortcut: bool = True
    factor: str = ""
    shortcut_factor: str = ""


class BlockSpec(Component):
    """Arrangement of one layer's attention, feed-forward and norms around the residual stream.

    The parts are ``context.parts``; a block builds them and determines the order of norms, dropout and residual connections.

    Declared capabilities:
        final_norm: a property, bool: whether a model with this as its last block needs a norm before its head; it has one
            unless the spec sets another. May depend on the block's fields.
        wiring: a property, the `Step`s of the block in their order, for diagrams; None (the default) if they cannot describe
            it. May depend on the block's boolean and `Literal` fields.
    """

    kind: ClassVar[str] = "block"
    runtime: ClassVar[str] = "gptkit.nn.block:Block"

    @property
    def final_norm(self) -> bool:
        """Whether the block's output is not normalized, so that the model needs a norm before its head."""
        return True

    @property
    def wiring(self) -> tuple[Step, ...] | None:
        """The additions to the residual stream in their order; None if steps cannot describe the block."""
        return None

    @abstractmethod
    def build(self, context: BuildContext) -> Block:
        """Return the module."""

    def written(self, context: WritingContext) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its parameters must have the names of the built module's.
        Its `forward` has the arguments x_BTE, positions_T and cache, a dictionary of this layer's tensors.
        """
        return None
