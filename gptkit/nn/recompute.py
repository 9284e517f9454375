"""Activation checkpointing: a block's activations are recomputed in the backward pass instead of being kept.

Source: "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gptkit.nn.exchange import Given
from gptkit.nn.forward import Forward

__all__ = ["Recompute", "run_recomputed"]

Recompute = Literal["none", "blocks"]
"""What the backward pass computes again: nothing, or every block from its input."""


def run_recomputed(block: Callable[[Tensor, Forward], Tensor], x_BTE: Tensor, forward: Forward) -> Tensor:
    """The block's output, computed such that only its input is kept for the backward pass.

    The block runs on a fork of the context, in the forward pass and again in the backward pass. What it publishes, carries
    and adds to the losses comes back as outputs of the recomputed function, so it reaches the context once, and gradients
    through it reach the block.

    Args:
        block: computes the block; it draws random numbers from torch's generators only, which are rewound for the second
            run.
        x_BTE: its input.
        forward: the context, without a cache.
    """
    start = forward.fork(x_BTE)

    def run(x_BTE: Tensor) -> tuple[Tensor, Given]:
        fork = start.fork(x_BTE)
        y_BTE = block(x_BTE, fork)
        return y_BTE, fork.given(y_BTE)

    y_BTE: Tensor
    y_BTE, given = checkpoint(run, x_BTE, use_reentrant=False)
    forward.take(given)
    return y_BTE
