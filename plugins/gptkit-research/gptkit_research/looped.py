"""Block `looped`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from gptkit.core.component import component
from gptkit.kinds.block import BlockSpec, Within
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward

__all__ = ["Looped", "LoopedSpec"]


class LoopedSpec(BlockSpec):
    """Another block applied several times with the same weights (looped depth, Universal Transformer).

    Formula:
        x ← block(x), `times` times

    Shapes:
        (B, T, d_model) → (B, T, d_model); cache: `times` times that of the block

    Paper:
        https://arxiv.org/abs/1807.03819

    Notes:
        The layer has the parameters of one block, and the operations and the cache of `times` blocks. With a `share` name,
        all layers of that name are one block (ALBERT, https://arxiv.org/abs/1909.11942).
    """

    name: Literal["looped"] = "looped"
    times: int = Field(2, ge=1, description="Number of times that the block is applied.")
    share: str | None = Field(
        None, min_length=1, description="Name of a block that layers share; by default, each has its own."
    )
    block: BlockSpec = component("pre-norm", description="The block.")
    examples = ({}, {"times": 3, "block": "sandwich"}, {"share": "all"})

    @property
    def final_norm(self) -> bool:
        return self.block.final_norm

    @property
    def wiring(self) -> tuple[Within, ...]:
        return (Within("block"),)

    def build(self, context: BuildContext) -> Block:
        key = ("looped", self.share)
        block = context.share(key, lambda: self.block.build(context)) if self.share else self.block.build(context)
        return Looped(block, self.times)


class Looped(Block):
    """The runtime part of `LoopedSpec`."""

    def __init__(self, block: Block, times: int) -> None:
        super().__init__()
        self.times = times
        self.block = block

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        for _ in range(self.times):
            x_BTE = self.block(x_BTE, forward)
        return x_BTE
