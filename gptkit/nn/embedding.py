"""The runtime contract of kind `embedding`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

from torch import Tensor, nn

from gptkit.nn.forward import Forward
from gptkit.nn.packed import Matrix, PackedMatrix
from gptkit.nn.vocabulary import VocabularyParallel

__all__ = ["EMBEDDED", "Embedding", "publish_embedding"]

EMBEDDED: Hashable = ("embedding", "output")
"""Key under which a model's embedding publishes its output, (B, T, d_model), if a module declares to read it."""


class Embedding(VocabularyParallel, ABC):
    """The runtime part of an embedding.

    The first call of a forward pass, which is the model's, publishes its output if a later module reads it. Heads that embed
    tokens once more call it again.
    """

    packed_table: tuple[PackedMatrix, ...] = ()
    """The table in a precision for inference, in a tuple, since the module that looks it up owns it."""

    publishes: tuple[Hashable, ...] = ()

    def __call__(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        x_BTE: Tensor = super().__call__(ids_BT, forward)
        if EMBEDDED in self.publishes and not forward.published(EMBEDDED):
            forward.publish(self, EMBEDDED, x_BTE)
        return x_BTE

    @property
    def matrix_VE(self) -> Matrix:
        """What a tied head multiplies with, by `gptkit.nn.packed.linear`: the table, packed or not."""
        return self.packed_table[0] if self.packed_table else self.table_VE

    @property
    @abstractmethod
    def table_VE(self) -> nn.Parameter:
        """The weight that a tied head uses, (vocabulary, d_model); narrower where the embedding projects up to d_model."""

    @abstractmethod
    def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
        """Map token ids (B, T) to vectors (B, T, d_model).

        A vector may depend on earlier tokens of its row and document, never on later ones. An embedding with such vectors is
        also `Stateful`, and its decoding state is ``forward.state(self)``.
        """


def publish_embedding(embedding: Embedding, model: nn.Module) -> None:
    """Let a model's embedding publish its output if a module of the model declares to read it."""
    if any(EMBEDDED in getattr(module, "reads", ()) for module in model.modules()):
        embedding.publishes = (*embedding.publishes, EMBEDDED)
