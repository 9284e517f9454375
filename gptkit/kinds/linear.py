"""Kind `linear`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LinearSpec"]


class LinearSpec(Component):
    """Linear projection of blocks: queries, keys, values, outputs and feed-forwards.

    The module is an `nn.Linear` or a subclass (`gptkit.nn.linear.TransformedLinear`): its weight (d_out, d_in) and bias
    (d_out) have the names and shapes of a dense projection, so checkpoints and initializers treat all alike. It maps
    (…, d_in) to (…, d_out), each vector by itself, and returns its input's dtype.

    Projections whose matrix is read as a whole stay dense: the scores of routers, one-number gates, and what latent
    attention absorbs when decoding.

    Declared capabilities:
        stacks: a mixture of experts may hold its experts' weights as one tensor, since the projection is the plain product.
    """

    kind: ClassVar[str] = "linear"
    stacks: ClassVar[bool] = False

    @abstractmethod
    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        """Return the module for vectors of `d_in` features. Components call ``context.linear(d_in, d_out, bias=…)``."""
