"""The runtime contract of kind `head`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["IGNORED", "Head", "before_training"]


IGNORED = -100
"""A target with this value takes no part in the loss, as in torch's cross_entropy."""


class Head(nn.Module, ABC):
    """The runtime part of a head.

    A head receives the forward context as blocks do: token ids, documents, masks, states, published values, losses. It may
    hold attentions, blocks and norms; their states are filled, reordered and truncated with the others.
    """

    @property
    def tied_weights(self) -> Mapping[str, str]:
        """Weights that the head shares with the embedding: the name each would have in the head, and its name there.

        The embedding owns the parameter. External files may store it under both names.
        """
        return {}

    def decoding_modules(self) -> Iterator[nn.Module]:
        """The modules that `forward` uses, which have a state in the cache; those of the training loss alone have none."""
        return self.modules()

    @property
    def mixes_tokens(self) -> bool:
        """Whether `forward` lets a token depend on others, so that it needs all tokens of a call, not the last one only."""
        return any(isinstance(module, Stateful) for module in self.decoding_modules())

    def before_training(self, tokenizer: Tokenizer) -> None:
        """Load and check what only the training loss needs (a teacher, say).

        Called in every process before a run is trained. By default nothing.

        Args:
            tokenizer: the run's tokenizer.

        Raises:
            GptkitError: it is missing, or does not fit the tokenizer.
        """

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """(B, T, d_model) to logits (B, T, vocabulary).

        A head that does not mix tokens may be called for some of a call's tokens (``forward.span``): the last ones where no
        others are needed, or chunk by chunk.
        """

    @abstractmethod
    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        """The mean cross-entropy in nats over targets that are not `IGNORED`, a scalar in fp32.

        Without holding the logits of all tokens at once. Further losses are added by ``forward.add_loss``, in training only.
        """


def before_training(model: nn.Module, tokenizer: Tokenizer) -> None:
    """Call `Head.before_training` of every head in a model, nested ones included.

    Args:
        model: the model that is about to be trained.
        tokenizer: the run's tokenizer.
    """
    for module in model.modules():
        if isinstance(module, Head):
            module.before_training(tokenizer)
