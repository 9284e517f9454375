"""Activation checkpointing: a block's activations are recomputed in the backward pass instead of being stored.

Source: "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gptkit.nn.exchange import Effects
from gptkit.nn.forward import Forward

__all__ = ["Recompute", "run_recomputed"]

Recompute = Literal["none", "blocks"]
"""What the backward pass recomputes: nothing, or every block from its input."""


def run_recomputed(block: Callable[[Tensor, Forward], Tensor], x_BTE: Tensor, forward: Forward) -> Tensor:
    """Run a block such that only its input is stored for the backward pass, and return its output.

    The block runs on a fork of the context, in the forward pass and again in the backward pass. What it publishes, carries
    and adds to the losses is an output of the recomputed function (`Effects`), so it reaches the context once, and
    gradients through it reach the block.

    Args:
        block: calls the block, which draws random numbers from torch's generators only: their state is restored for the
            second run.
        x_BTE: the block's input.
        forward: the context, without a cache.
    """
    start = forward.fork(x_BTE)

    def run(x_BTE: Tensor) -> tuple[Tensor, Effects]:
        fork = start.fork(x_BTE)
        y_BTE = block(x_BTE, fork)
        return y_BTE, fork.effects(y_BTE)

    y_BTE: Tensor
    y_BTE, effects = checkpoint(run, x_BTE, use_reentrant=False)
    forward.apply(effects)
    return y_BTE
