"""Kind `initializer`; how modules declare the initialization of their parameters is described in `gptkit.nn.initial`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gptkit.nn.initial import Role

__all__ = ["InitializerSpec"]


class InitializerSpec(Component):
    """Initialization of parameters by their role.

    The values depend on the seed, the parameter's name and its shape only.
    """

    kind: ClassVar[str] = "initializer"

    @abstractmethod
    def fill(self, role: Role, shape: torch.Size, generator: torch.Generator, context: BuildContext) -> Tensor:
        """Return the initial values, fp32, of a parameter with a role ("weight", "output" or "embedding").

        ``context.parameter`` has its full name, the index of its layer, and the rows of the projections packed in it.
        """
