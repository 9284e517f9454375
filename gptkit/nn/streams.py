"""The base of blocks with several residual streams.

Shapes: B batch, T tokens, E model width, N streams.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable

from torch import Tensor

from gptkit.nn.block import Block
from gptkit.nn.forward import Forward

__all__ = ["StreamBlock"]


class StreamBlock(Block):
    """A block with several residual streams, which it carries to the next block under its key (`Forward.carry`).

    A block around it that changes its streams calls `received`, and then `run` with the changed ones, in place of the block
    itself; it declares the same key in `carries`.

    Attributes:
        streams: N.
        key: the key; blocks with equal ones continue each other's streams.
    """

    def __init__(self, name: str, streams: int) -> None:
        super().__init__()
        self.streams = streams
        self.key: Hashable = (name, streams)
        self.carries = (self.key,)

    def received(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Return the streams of the input, (B, T, N, E).

        They are copies of `x_BTE` in the first block, and after one of another kind.
        """
        streams_BTNE: Tensor | None = forward.carried(self, self.key)
        return x_BTE[:, :, None].expand(-1, -1, self.streams, -1) if streams_BTNE is None else streams_BTNE

    @abstractmethod
    def run(self, streams_BTNE: Tensor, forward: Forward) -> Tensor:
        """Transform the streams, carry them, and return the block's output, (B, T, E)."""

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        return self.run(self.received(x_BTE, forward), forward)
