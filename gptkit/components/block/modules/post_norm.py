"""Runtime module of block `post-norm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.post_norm import PostNormSpec

__all__ = ["PostNorm"]


class PostNorm(Block):
    """Runtime part of `PostNormSpec`."""

    def __init__(self, spec: PostNormSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.attention = parts.attention.build(context)
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.dropout = spec.dropout

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        branch_BTE = dropout(self.attention(x_BTE, forward), self.dropout, self.training)
        x_BTE = self.attention_norm(torch.add(x_BTE, branch_BTE, alpha=self.residual_scale))
        branch_BTE = dropout(self.feedforward(x_BTE, forward), self.dropout, self.training)
        y_BTE: Tensor = self.feedforward_norm(torch.add(x_BTE, branch_BTE, alpha=self.residual_scale))
        return y_BTE
