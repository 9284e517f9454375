"""The runtime contract of kind `attention`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward

__all__ = ["Attention"]


class Attention(nn.Module, Stateful, ABC):
    """The runtime part of an attention, or of another layer that mixes tokens."""

    @property
    def prefix_problem(self) -> str | None:
        """The reason why the attention does not support a bidirectional prefix, as a clause; None if it does.

        To be overridden by an attention that uses ``forward.mask`` and whose terms are defined for keys after the query.
        """
        return f"{type(self).__name__} is strictly causal"

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Map (B, T, d_model) to (B, T, d_model).

        Masks are those of ``forward.mask``, the decoding state is ``forward.state(self)``.

        An attention with weights passes them, (B, H, T, S), to ``forward.keep_weights`` once per call: finite, and zero for
        masked keys. They need not be positive, nor add up to 1 (those of a sigmoid attention do not). If they were not
        requested, ``forward.weights`` is None, and they need not be computed. An attention without weights (a recurrence)
        passes none.
        """
