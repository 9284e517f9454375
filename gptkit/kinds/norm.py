"""Kind `norm`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.core.walk import components
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import Name, WritingContext, Written

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NormSpec", "stacking_problem"]


class NormSpec(Component):
    """Normalization of single vectors.

    The module maps (…, dim) to (…, dim) and normalizes every vector separately, without statistics over the batch or over
    positions. It computes in fp32 where precision requires it, and returns its input's dtype.
    """

    kind: ClassVar[str] = "norm"
    builds_module: ClassVar[bool] = True

    @abstractmethod
    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        """Return the module for vectors of `dim` features: d_model in the residual stream, d_head for QK norm."""

    def written(self, context: WritingContext, *, dim: Name) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its parameters must have the names of the built module's.

        Args:
            dim: the number of features, an expression of the file.
        """
        return None


def stacking_problem(norm: NormSpec) -> str | None:
    """Return why a norm cannot have weights of its own for each of several vectors (`EachHead`); None if it can."""
    if any(path for path, _ in components(norm)):
        return f"norm {norm.name!r} contains another one and cannot be stacked"
    return None
