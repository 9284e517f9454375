"""The runtime contract of kind `attention`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward

__all__ = ["Attention"]


class Attention(nn.Module, Stateful, ABC):
    """The runtime part of an attention (or of any other mixer of tokens)."""

    @property
    def prefix_problem(self) -> str | None:
        """Why the attention cannot attend a prefix in both directions (a clause with the reason), or None where it can.

        An attention that uses ``forward.mask`` and whose terms are defined for keys after the query overrides this.
        """
        return f"{type(self).__name__} is causal throughout"

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """(B, T, d_model) to (B, T, d_model).

        Masks come from ``forward.mask``, memory from ``forward.state(self)``.

        An attention that has weights passes those that it used, (B, H, T, S), to ``forward.keep_weights`` once per call:
        finite, and zero wherever the mask forbids. They need not add up to 1 (a sigmoid attention's do not), nor be
        positive. ``forward.weights`` is None where none were requested, and they need not be computed. An attention without
        weights (a recurrence) passes none.
        """
