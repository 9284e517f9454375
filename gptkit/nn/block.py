"""The runtime contract of kind `block`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from gptkit.nn.forward import Forward

__all__ = ["Block"]


class Block(nn.Module, ABC):
    """The runtime part of a block."""

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """(B, T, d_model) to (B, T, d_model).

        Where ``forward.last_only`` is set, a block may return the vectors of the last tokens only, if no later layer needs
        the others (the cross-decoder of YOCO in prefill); the blocks and the head after it run on these.
        """
