"""Kind `initializer`, and how a component says how its tensors start.

A module may have a method ``initial() -> dict[str, Initial]`` that maps names of its parameters (dotted for those of
its children) to how they start. An outer module's word counts more than an inner one's. Parameters that nobody speaks
for start as torch's own module of that type would suggest: linear weights `"weight"`, embeddings `"embedding"`, biases
`"zeros"`, norm weights `"ones"`.
"""

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
    """Turns roles into numbers. Seeded; a parameter's numbers depend on the seed, its name and its shape only."""

    kind: ClassVar[str] = "initializer"

    @abstractmethod
    def fill(self, role: Role, shape: torch.Size, generator: torch.Generator, context: BuildContext) -> Tensor:
        """The starting value, fp32, of a parameter with that role ("weight", "output" or "embedding")."""
