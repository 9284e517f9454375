"""The runtime contract of kind `block`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn

from gptkit.nn.forward import Forward
from gptkit.nn.recompute import run_recomputed

__all__ = ["Block", "outermost_blocks"]


class Block(nn.Module, ABC):
    """The runtime part of a block.

    A call ``block(x_BTE, forward)`` passes on the values that blocks carry. If the context says so, it is recomputed in the
    backward pass (activation checkpointing), among the layers and in a head alike; a nested block is recomputed with its
    outer one.
    """

    def __call__(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        call = super().__call__
        y_BTE: Tensor
        if not forward.carries and not forward.recomputes:
            y_BTE = call(x_BTE, forward)
            return y_BTE
        outer = forward.begin_block(x_BTE)
        y_BTE = run_recomputed(call, x_BTE, forward) if forward.recomputes else call(x_BTE, forward)
        forward.end_block(outer, y_BTE)
        return y_BTE

    @abstractmethod
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Map (B, T, d_model) to (B, T, d_model).

        Where ``forward.last_only`` is set, a block may return the vectors of the last tokens only, if no later layer needs
        the others (the cross-decoder of YOCO in prefill); the blocks and the head after it run on these.
        """


def outermost_blocks(module: nn.Module) -> Iterator[Block]:
    """Yield the blocks in a module that are not within another block, in the order of assembly."""
    for child in module.children():
        if isinstance(child, Block):
            yield child
        else:
            yield from outermost_blocks(child)
