"""Kind `feedforward`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.feedforward import FeedForward
    from gptkit.nn.stacked import StackedFeedForward

__all__ = ["FeedForwardSpec"]


class FeedForwardSpec(Component):
    """Feed-forward: the part of a block that is applied to every token separately.

    The output at a position depends on the input at that position only (and on token ids through the forward context, for
    components that declare it). A feed-forward may contain feed-forwards (experts).

    Declared capabilities:
        takes_addition: its module adds a tensor to its projection of the input (`gptkit.nn.addition.TakesAddition`).
    """

    kind: ClassVar[str] = "feedforward"
    runtime: ClassVar[str] = "gptkit.nn.feedforward:FeedForward"
    builds_module: ClassVar[bool] = True
    takes_addition: ClassVar[bool] = False

    @abstractmethod
    def build(self, context: BuildContext) -> FeedForward:
        """Return the module, for context.d_model features."""

    def build_stacked(self, context: BuildContext, n_experts: int) -> StackedFeedForward | None:
        """Return the experts of a mixture as one module with stacked weights, or None if this form is not supported.

        Experts without a stacked form are modules from `build`, one per expert. They are slower, since on accelerators and
        in compiled models each processes as many rows as there are tokens. With a stacked form, the products of all experts
        are one operation; build it from `gptkit.nn.stacked.StackedLinear`. Both forms must compute the same result.
        """
        return None

    def written(self, context: WritingContext) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its parameters must have the names of the built module's.
        Its call "apply" is the value for $x, and may use positions_T and cache; without it, its `forward` has one argument.
        """
        return None

    def written_stacked(self, context: WritingContext, *, n_experts: int) -> Written | None:
        """Return how the experts that `build_stacked` builds are written out; None if they are not.

        Their `forward` has the arguments x_ME, the tokens of one expert, and its index.
        """
        return None
