"""The runtime contract of kind `head`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward

__all__ = ["IGNORED", "Head"]


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

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """(B, T, d_model) to logits (B, T, vocabulary).

        A head that does not mix tokens is called for the last tokens only where no others are needed.
        """

    @abstractmethod
    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        """The mean cross-entropy in nats over targets that are not `IGNORED`, a scalar in fp32.

        Without holding the logits of all tokens at once. Further losses are added by ``forward.add_loss``, in training only.
        """
