"""Kind `activation`."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from gptkit.kinds.context import BuildContext
from gptkit.spec import Component

__all__ = ["ActivationSpec"]


class ActivationSpec(Component):
    """The non-linearity of a feed-forward: elementwise, any shape to the same shape and dtype."""

    kind: ClassVar[str] = "activation"

    @abstractmethod
    def build(self, context: BuildContext) -> nn.Module:
        """The module."""
