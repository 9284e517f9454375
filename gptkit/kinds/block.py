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

__all__ = ["BlockSpec", "Step", "Within"]


@dataclass(frozen=True)
class Step:
    """One addition to the residual stream, for diagrams: branches that read it, and whose sum returns to it.

    Attributes:
        branches: the parts of each branch in their order: ``norm``, ``attention``, ``feedforward``, or the title of a part
            that is the block's own (at most 38 characters). A branch without parts adds what it reads.
        before: parts through which all branches read the stream.
        after: whether the sum is normalized, on the residual stream.
        shortcut: whether the branches are added to the stream; otherwise they replace it.
        factor: name of the field whose value multiplies the branches; empty if none does.
        shortcut_factor: name of the field whose value multiplies the stream before the addition.
        scaled: what the stream is multiplied by after the addition, or how its terms are weighted, in words; empty if they
            are not.
        only_with: name of the field that the step requires: it is absent where the field is null; empty for none.
    """

    branches: tuple[tuple[str, ...], ...]
    before: tuple[str, ...] = ()
    after: bool = False
    shortcut: bool = True
    factor: str = ""
    shortcut_factor: str = ""
    scaled: str = ""
    only_with: str = ""


@dataclass(frozen=True)
class Within:
    """The steps of another block, which is the value of a field, for diagrams.

    Attributes:
        field: name of the field.
    """

    field: str


class BlockSpec(Component):
    """Arrangement of one layer's attention, feed-forward and norms around the residual stream.

    The parts are ``context.parts``; a block builds them and determines the order of norms, dropout and residual connections.

    Declared capabilities:
        final_norm: a property, bool: whether a model with this as its last block needs a norm before its head; it has one
            unless the spec sets another. May depend on the block's fields.
        wiring: a property, the `Step`s of the block in their order, for diagrams, and `Within` for those of a block that it
            contains; None (the default) if they cannot describe it. May depend on the block's boolean and `Literal` fields.
        repeats_attention: whether it calls one attention several times in a forward pass. Later layers cannot attend to the
            keys and values of such a layer, because a value is published once.
    """

    kind: ClassVar[str] = "block"
    runtime: ClassVar[str] = "gptkit.nn.block:Block"
    builds_module: ClassVar[bool] = True
    repeats_attention: ClassVar[bool] = False

    @property
    def final_norm(self) -> bool:
        """Whether the block's output is not normalized, so that the model needs a norm before its head."""
        return True

    @property
    def wiring(self) -> tuple[Step | Within, ...] | None:
        """The additions to the residual stream in their order; None if steps cannot describe the block."""
        return None

    def steps(self) -> list[tuple[Step, BlockSpec]] | None:
        """Return the steps of the block and of the blocks within it, each with the block that declares it.

        Returns:
            The steps in their order; None if one of the blocks does not declare its wiring.
        """
        if self.wiring is None:
            return None
        result: list[tuple[Step, BlockSpec]] = []
        for each in self.wiring:
            if isinstance(each, Step):
                result += [(each, self)] if not each.only_with or getattr(self, each.only_with) is not None else []
                continue
            inner = getattr(self, each.field).steps()
            if inner is None:
                return None
            result += inner
        return result

    @abstractmethod
    def build(self, context: BuildContext) -> Block:
        """Return the module."""

    def written(self, context: WritingContext) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its parameters must have the names of the built module's.
        Its `forward` has the arguments x_BTE, positions_T and cache, a dictionary of this layer's tensors.
        """
        return None
