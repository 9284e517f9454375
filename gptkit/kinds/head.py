"""Kind `head`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from gptkit.nn.embedding import Embedding
    from gptkit.nn.head import Head

__all__ = ["HeadSpec"]


class HeadSpec(Component):
    """Output head: computes the logits of the last hidden states, and the loss.

    A head may contain components of any kind. They are built in a layer context (`context.parts`) with the model's position,
    attention, norm and feed-forward, and with the index after the last layer.
    """

    kind: ClassVar[str] = "head"
    runtime: ClassVar[str] = "gptkit.nn.head:Head"

    @abstractmethod
    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        """Return the module. A tied head uses the table of `embedding`."""
