"""Kind `head`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.written import WritingContext, Written

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
    builds_module: ClassVar[bool] = True

    @abstractmethod
    def build(self, context: BuildContext, *, embedding: Embedding) -> Head:
        """Return the module. A tied head uses the table of `embedding`."""

    def written(self, context: WritingContext, *, embedding: EmbeddingSpec) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its parameters must have the names of the built module's.
        Its call "logits" is the logits for $x.
        """
        return None
