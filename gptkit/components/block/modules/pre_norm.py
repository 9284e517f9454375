"""Runtime module of block `pre-norm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.short_convolution import ShortConvolution
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.pre_norm import PreNormSpec

__all__ = ["PreNorm"]


class PreNorm(Block):
    """Runtime part of `PreNormSpec`."""

    def __init__(self, spec: PreNormSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.shortcut = spec.shortcut
        normed = spec.attention_input_norm
        self.attention_norm = parts.norm.build(context, dim=context.d_model) if normed else nn.Identity()
        self.attention = parts.attention.build(context)
        self.feedforward_norm = (spec.feedforward_norm or parts.norm).build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.attention_conv, self.feedforward_conv = (
            None if spec.output_conv is None else ShortConvolution(context.d_model, spec.output_conv) for _ in range(2)
        )
        self.attention_output_norm, self.feedforward_output_norm = (_norm(spec.output_norm, context) for _ in range(2))
        self.attention_stream_norm, self.feedforward_stream_norm = (_norm(spec.stream_norm, context) for _ in range(2))
        self.dropout = spec.dropout
        self.adds = spec.shortcut and spec.residual_scale == 1

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        branch_BTE = self.attention(self.attention_norm(x_BTE), forward)
        if self.attention_conv is not None:
            branch_BTE = self.attention_conv(branch_BTE, forward)
        x_BTE = self._join(x_BTE, branch_BTE, self.attention_stream_norm, self.attention_output_norm)
        branch_BTE = self.feedforward(self.feedforward_norm(x_BTE), forward)
        if self.feedforward_conv is not None:
            branch_BTE = self.feedforward_conv(branch_BTE, forward)
        return self._join(x_BTE, branch_BTE, self.feedforward_stream_norm, self.feedforward_output_norm)

    def _join(
        self, x_BTE: Tensor, branch_BTE: Tensor, stream_norm: nn.Module | None, output_norm: nn.Module | None
    ) -> Tensor:
        if output_norm is not None:
            branch_BTE = output_norm(branch_BTE)
        if stream_norm is not None:
            x_BTE = stream_norm(x_BTE)
        branch_BTE = dropout(branch_BTE, self.dropout, self.training)
        if self.adds:
            return x_BTE + branch_BTE
        if self.shortcut:
            return torch.add(x_BTE, branch_BTE, alpha=self.residual_scale)
        return branch_BTE * self.residual_scale if self.residual_scale != 1 else branch_BTE


def _norm(spec: NormSpec | None, context: BuildContext) -> nn.Module | None:
    return None if spec is None else spec.build(context, dim=context.d_model)
