"""Looped depth, and layers that are one block: components for tests."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

from torch import Tensor

from gptkit.core.component import Component, component
from gptkit.core.hooks import hookimpl
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward

__all__ = ["LoopedSpec", "OneBlockSpec", "looped_plugin"]


class LoopedSpec(BlockSpec):
    """A block applied several times with the same weights (https://arxiv.org/abs/1807.03819)."""

    name: Literal["looped"] = "looped"
    block: BlockSpec = component("pre-norm", description="The block.")
    times: int = 2

    def build(self, context: BuildContext) -> Block:
        return Looped(self.block.build(context), self.times)


class OneBlockSpec(LoopedSpec):
    """One block that all layers apply (https://arxiv.org/abs/1909.11942)."""

    name: Literal["one-block"] = "one-block"  # type: ignore[assignment]

    def build(self, context: BuildContext) -> Block:
        return Looped(context.share(("one-block",), lambda: self.block.build(context)), self.times)


class Looped(Block):
    def __init__(self, block: Block, times: int) -> None:
        super().__init__()
        self.times = times
        self.block = block

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        for _ in range(self.times):
            x_BTE = self.block(x_BTE, forward)
        return x_BTE


def looped_plugin() -> ModuleType:
    """Return a plugin that provides both."""
    module = ModuleType("looped_plugin")
    components: list[type[Component]] = [LoopedSpec, OneBlockSpec]
    plugin: Any = module
    plugin.gptkit_components = hookimpl(lambda: components)
    return module
