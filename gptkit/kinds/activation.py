"""Kind `activation`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ActivationSpec"]


class ActivationSpec(Component):
    """Nonlinearity of a feed-forward: elementwise; the result has the input's shape and dtype.

    Class variables:
        external_names: names of the activation in configurations of external models (`hidden_act`): those of transformers
            for exactly this function with the fields' defaults. All are read; the first is written. Without a name, no
            family expresses a model with the activation, which is then exported with generated code.
    """

    kind: ClassVar[str] = "activation"
    builds_module: ClassVar[bool] = True
    external_names: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, context: BuildContext) -> nn.Module:
        """Return the module."""

    def written(self, context: WritingContext) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its call "apply" is the value for $x.
        """
        return None
