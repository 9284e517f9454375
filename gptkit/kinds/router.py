"""Kind `router`.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["RouterSpec"]


class RouterSpec(Component):
    """Router: chooses the experts of every token and their weights.

    A token's experts depend on that token only, not on the rest of its row or on the batch.

    Class variables:
        holder: the kind of the components that usually have one, for examples of its use.
        reads_ids: it reads the ids of the tokens from the forward context.
    """

    kind: ClassVar[str] = "router"
    runtime: ClassVar[str] = "gptkit.nn.router:Router"
    builds_module: ClassVar[bool] = True
    holder: ClassVar[str] = "feedforward"
    reads_ids: ClassVar[bool] = False

    def expert_problems(self, n_experts: int) -> Iterator[Problem]:
        """Yield the reasons why the router does not support this number of experts: paths below this spec, and messages."""
        yield from ()

    @abstractmethod
    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        """Return the module, for vectors of context.d_model features."""

    def written(self, context: WritingContext, *, n_experts: int) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its parameters must have the names of the built module's. If it `reads_ids`, its `forward` has a second
        argument, the ids (N,). One that needs what layers share in a call has the call "apply" of `self.router` with the
        vectors `x_NE`, in a feed-forward alone: ``self.router(x_NE, cache.shared)``.
        """
        return None
