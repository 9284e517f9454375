"""Runtime module of block `single-branch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.single_branch import SingleBranchSpec

__all__ = ["SingleBranch"]


class SingleBranch(Block):
    """Runtime part of `SingleBranchSpec`. Its modules have the names of those of other blocks."""

    def __init__(self, spec: SingleBranchSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale, self.dropout, self.shortcut = spec.residual_scale, spec.dropout, spec.shortcut
        self.attends = spec.branch == "attention"
        if self.attends:
            self.attention_norm = parts.norm.build(context, dim=context.d_model)
            self.attention = parts.attention.build(context)
        else:
            self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
            self.feedforward = parts.feedforward.build(context)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        if self.attends:
            branch_BTE = self.attention(self.attention_norm(x_BTE), forward)
        else:
            branch_BTE = self.feedforward(self.feedforward_norm(x_BTE), forward)
        branch_BTE = dropout(branch_BTE, self.dropout, self.training)
        if not self.shortcut:
            return branch_BTE * self.residual_scale if self.residual_scale != 1 else branch_BTE
        return torch.add(x_BTE, branch_BTE, alpha=self.residual_scale)
