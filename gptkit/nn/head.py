"""The runtime contract of kind `head`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward
from gptkit.nn.predictions import Predictions
from gptkit.nn.vocabulary import VocabularyParallel

if TYPE_CHECKING:
    from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["IGNORED", "Head", "WrappedHead", "before_training"]


IGNORED = -100
"""Targets with this value are excluded from the loss, as in torch's cross_entropy."""


class Head(VocabularyParallel, ABC):
    """The runtime part of a head.

    A head receives the forward context as blocks do: token ids, documents, masks, states, published values, losses. It may
    contain attentions, blocks and norms; their states are updated, reordered and truncated with those of the layers.
    Weights of terms of the training loss are in an attribute `loss_weights`, from which stages of a training set them
    (`gptkit.nn.loss_weights`).
    """

    @property
    def tied_weights(self) -> Mapping[str, str]:
        """Weights that the head shares with the embedding: names in the head, and the names of the embedding's parameters.

        The embedding owns the parameters. External files may store them under both names.
        """
        return {}

    @property
    def matrices(self) -> tuple[str, ...]:
        """Names of its own parameters that it multiplies with by `gptkit.nn.packed.linear`, so that they may be packed."""
        return ()

    def decoding_modules(self) -> Iterator[nn.Module]:
        """Yield the modules that `forward` uses, whose states are in the cache; without those of the training loss only."""
        return self.modules()

    @property
    def mixes_tokens(self) -> bool:
        """Whether the logits of a token depend on other tokens, so that `forward` needs all tokens of a call."""
        return any(isinstance(module, Stateful) for module in self.decoding_modules())

    @property
    def predictions(self) -> Predictions | None:
        """Modules that predict tokens after the next one, with which a drafter can propose tokens; None without any."""
        return None

    def before_training(self, tokenizer: Tokenizer) -> None:
        """Load and check what only the training loss requires, such as a teacher. Does nothing by default.

        Called in every process before a run is trained.

        Args:
            tokenizer: the run's tokenizer.

        Raises:
            GptkitError: something is missing, or does not match the tokenizer.
        """

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Return the logits (B, T, vocabulary) of vectors (B, T, d_model).

        A head that does not mix tokens may be called for some of a call's tokens (``forward.span``): for the last ones only,
        or chunk by chunk.
        """

    @abstractmethod
    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        """Return the mean cross-entropy in nats over targets that are not `IGNORED`, a scalar in fp32.

        It should not hold the logits of all tokens at once. Further losses are added by ``forward.add_loss``, in training
        only.
        """


class WrappedHead(Head):
    """Base class of heads around another one, which alone computes the logits. A subclass adds losses in training.

    Args:
        head: the inner head.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def decoding_modules(self) -> Iterator[nn.Module]:
        return self.head.decoding_modules()

    @property
    def mixes_tokens(self) -> bool:
        return self.head.mixes_tokens

    @property
    def predictions(self) -> Predictions | None:
        return self.head.predictions

    @property
    def tied_weights(self) -> Mapping[str, str]:
        return {f"head.{name}": owner for name, owner in self.head.tied_weights.items()}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        logits_BTV: Tensor = self.head(x_BTE, forward)
        return logits_BTV

    def loss(self, x_BTE: Tensor, targets_BT: Tensor, forward: Forward) -> Tensor:
        return self.head.loss(x_BTE, targets_BT, forward)


def before_training(model: nn.Module, tokenizer: Tokenizer) -> None:
    """Call `Head.before_training` of every head in a model, nested ones included.

    Args:
        model: the model that is about to be trained.
        tokenizer: the run's tokenizer.
    """
    for module in model.modules():
        if isinstance(module, Head):
            module.before_training(tokenizer)
