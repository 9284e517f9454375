"""Runtime module of block `shortcut-experts`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.shortcut_experts import ShortcutExpertsSpec

__all__ = ["ShortcutExperts"]


class ShortcutExperts(Block):
    """Runtime part of `ShortcutExpertsSpec`."""

    def __init__(self, spec: ShortcutExpertsSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.attention_norm = nn.ModuleList(parts.norm.build(context, dim=context.d_model) for _ in range(2))
        self.attention = nn.ModuleList(parts.attention.build(context) for _ in range(2))
        self.feedforward_norm = nn.ModuleList(parts.norm.build(context, dim=context.d_model) for _ in range(2))
        self.feedforward = nn.ModuleList(parts.feedforward.build(context) for _ in range(2))
        self.experts = spec.experts.build(context)
        self.dropout = spec.dropout

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_BTE = x_BTE + self._dropped(self.attention[0](self.attention_norm[0](x_BTE), forward))
        h_BTE = self.feedforward_norm[0](x_BTE)
        routed_BTE = self._dropped(self.experts(h_BTE, forward))
        x_BTE = x_BTE + self._dropped(self.feedforward[0](h_BTE, forward))
        x_BTE = x_BTE + self._dropped(self.attention[1](self.attention_norm[1](x_BTE), forward))
        return x_BTE + self._dropped(self.feedforward[1](self.feedforward_norm[1](x_BTE), forward)) + routed_BTE

    def _dropped(self, branch_BTE: Tensor) -> Tensor:
        return dropout(branch_BTE, self.dropout, self.training)
