"""Kind `linear`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LinearSpec"]


class LinearSpec(Component):
    """Linear projection of blocks: queries, keys, values, outputs and feed-forwards.

    The module is an `nn.Linear` or a subclass (`gptkit.nn.linear.TransformedLinear`): its weight (d_out, d_in) and bias
    (d_out) have the names and shapes of a dense projection, so that checkpoints and initializers support every component.
    It maps (…, d_in) to (…, d_out), each vector separately, and returns its input's dtype.

    Some projections are always dense: the scores of routers, scalar gates, and the matrices that latent attention absorbs
    when decoding.

    A projection with adapters (`gptkit.nn.linear.AdaptedLinear`) has additional parameters, which are trained instead of
    the dense ones.

    Declared capabilities:
        stacks: a mixture of experts may hold its experts' weights as one tensor: the projection is a plain product.
    """

    kind: ClassVar[str] = "linear"
    builds_module: ClassVar[bool] = True
    stacks: ClassVar[bool] = False

    @abstractmethod
    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        """Return the module for vectors of `d_in` features. Components call ``context.linear(d_in, d_out, bias=…)``."""

    def merged(self) -> LinearSpec:
        """Return the projection after its adapters are merged into the weights; by default itself."""
        return self

    def name_problems(self, names: Sequence[str], stacked: Sequence[str]) -> Iterator[Problem]:
        """Yield problems that depend on the names of a model's projections, with paths below this spec.

        Args:
            names: the names of the projections in the blocks, ``blocks.0.attention.qkv``.
            stacked: the names of the stacked projections of experts, which `build` does not return.
        """
        return iter(())

    def written(self, context: WritingContext) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its call "construct" is the constructor for $d_in, $d_out and $bias, which is "" or ", bias=False".
        """
        return None
