"""Block `skips`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.block import BlockSpec, Step, Within
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

__all__ = ["Skips", "SkipsSpec"]


class SkipsSpec(BlockSpec):
    """Another block, whose input receives the output of an earlier one with a learned weight, as in a U-Net.

    Formula:
        x_i ← block_i(x_{i-1} + w_i · x_s), with s the source of layer i, counted from 0; without one block_i(x_{i-1})
        s = n_layers - 1 - i for the second half of the layers, by default

    Shapes:
        (B, T, d_model) → (B, T, d_model); w is one number for each layer with a source

    Paper:
        https://github.com/KellerJordan/modded-nanogpt

    Notes:
        The last layer of the first half is the source of the next one, and the first layer that of the last one; with an
        odd number of layers the middle one has none. A layer of this block publishes its output (`Forward.publish`) under
        the key `("skips", layer)`, so that the source of a layer must have this block, too. With `weight: 0` the model
        initially equals one without skips.
    """

    name: Literal["skips"] = "skips"
    weight: float = Field(1.0, description="Initial weight w of the earlier layer's output.")
    source: int | None = Field(
        None, ge=0, description="The earlier layer, counted from 0; the mirrored one of the first half by default."
    )
    block: BlockSpec = component("pre-norm", description="The block that is applied to the sum.")
    examples = ({}, {"weight": 0.5, "block": "sandwich"})

    @property
    def final_norm(self) -> bool:
        return self.block.final_norm

    @property
    def wiring(self) -> tuple[Step | Within, ...]:
        return (Step((("output of an earlier layer, if any",),)), Within("block"))

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if self.source is not None and self.source >= context.parts.index:
            yield Problem(
                ("source",), f"layer {self.source} does not precede layer {context.parts.index}; choose an earlier layer"
            )

    def build(self, context: BuildContext) -> Block:
        return Skips(self, context)


class Skips(Block):
    """The runtime part of `SkipsSpec`."""

    def __init__(self, spec: SkipsSpec, context: BuildContext) -> None:
        super().__init__()
        index, n_layers = context.parts.index, context.n_layers
        source = spec.source
        if source is None and n_layers - n_layers // 2 <= index < n_layers:
            source = n_layers - 1 - index
        self.key, self.source_key = ("skips", index), ("skips", source)
        # No layer follows the last one, and the blocks of a head share an index.
        self.publishes = (self.key,) if index < n_layers - 1 else ()
        self.reads = () if source is None else (self.source_key,)
        self.first_weight = spec.weight
        self.weight = None if source is None else nn.Parameter(torch.tensor([spec.weight]))
        self.block = spec.block.build(context)

    def initial(self) -> dict[str, Initial]:
        return {} if self.weight is None else {"weight": lambda shape, generator: torch.full(shape, self.first_weight)}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        if self.weight is not None:
            # Later blocks may run on the last tokens only.
            earlier_BTE: Tensor = forward.read(self, self.source_key)[:, -x_BTE.shape[1] :]
            x_BTE = x_BTE + self.weight.to(x_BTE.dtype) * earlier_BTE
        y_BTE: Tensor = self.block(x_BTE, forward)
        if self.publishes:
            forward.publish(self, self.key, y_BTE)
        return y_BTE
