"""Kind `activation`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ActivationSpec"]


class ActivationSpec(Component):
    """Nonlinearity of a feed-forward: elementwise; the result has the input's shape and dtype."""

    kind: ClassVar[str] = "activation"

    @abstractmethod
    def build(self, context: BuildContext) -> nn.Module:
        """The module."""
