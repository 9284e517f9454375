"""The runtime contract of modules that predict tokens after the next one.

Shapes: B batch, T tokens, E model width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.store import States
from gptkit.nn.forward import Forward

__all__ = ["Predictions"]


class Predictions(ABC):
    """Prediction modules of a head, in a chain: module k = 1, …, depth predicts the token k + 1 after the current one.

    ::

        h⁰ = x, the vectors that the head receives
        hᵏ[t] = module k(hᵏ⁻¹[t], id[t + k])
        logitsᵏ[t] = head(hᵏ[t]), the distribution of token t + k + 1
    """

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of modules."""

    @abstractmethod
    def new_prediction_states(self, allocation: Allocation) -> States:
        """Return empty decoding states of all modules; those of the model's layers are separate."""

    @abstractmethod
    def predict(self, k: int, x_BTE: Tensor, following: Forward, forward: Forward) -> Tensor:
        """Return hᵏ of this call's tokens, (B, T, E), and add the tokens to the module's states.

        Args:
            k: the module, 1 to `depth`.
            x_BTE: hᵏ⁻¹ of these tokens.
            following: context of the tokens that are k later, without states.
            forward: context of these tokens, with the states of `new_prediction_states`. One context serves one call of
                each module, in the order of the chain.
        """

    @abstractmethod
    def predicted_logits(self, k: int, h_BTE: Tensor, forward: Forward) -> Tensor:
        """Return the logits (B, T, V) of hᵏ.

        Args:
            k, forward: as for `predict`.
            h_BTE: what `predict` returned, or some of these tokens with their `Forward.span`.
        """
