"""Kind `embedding`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.embedding import Embedding

__all__ = ["EmbeddingSpec"]


class EmbeddingSpec(Component):
    """Token embedding, which also applies the absolute part of the model's position (``context.position``).

    Requirements:
        causality: a vector depends on its own token and on earlier ones of the same row and document only;
        cache equivalence: an embedding that depends on earlier tokens keeps a state (`Stateful`), so that prefill and single
        steps give the result of one full call.
    """

    kind: ClassVar[str] = "embedding"
    runtime: ClassVar[str] = "gptkit.nn.embedding:Embedding"
    builds_module: ClassVar[bool] = True

    @abstractmethod
    def build(self, context: BuildContext) -> Embedding:
        """Return the module, for context.vocab_size ids and context.d_model features."""

    def written(self, context: WritingContext) -> Written | None:
        """Return how the component is written out in a file of plain PyTorch (`gptkit eject`); None if it is not.

        Its parameters must have the names of the built module's.
        Its call "embed" is the vectors for ids_BT and positions_T.
        """
        return None
