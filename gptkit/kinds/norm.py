"""Kind `norm`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NormSpec"]


class NormSpec(Component):
    """Normalises vectors, one at a time.

    The module maps (..., dim) to (..., dim) and treats every vector alone: no statistics run over the batch or over
    positions. It computes in fp32 inside where that matters and returns its input's dtype.
    """

    kind: ClassVar[str] = "norm"

    @abstractmethod
    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        """The module for vectors of `dim` features: d_model in the residual stream, d_head for QK norm."""
