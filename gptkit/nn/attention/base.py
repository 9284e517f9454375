"""The runtime contract of kind `attention`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward
from gptkit.nn.tensor_parallel import TensorParallel

__all__ = ["Attention"]


class Attention(TensorParallel, Stateful, ABC):
    """The runtime part of an attention, or of another layer that mixes tokens.

    Attributes:
        window: sliding window in tokens, the current one included, as the spec declares it; None for no limit.
        training_window: a smaller window of training steps, which a callback may set; None for `window`.
    """

    window: int | None = None
    training_window: int | None = None

    @property
    def current_window(self) -> int | None:
        """The window of this call's mask: `training_window` in training, if it is set, else `window`."""
        return self.window if self.training_window is None or not self.training else self.training_window

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
