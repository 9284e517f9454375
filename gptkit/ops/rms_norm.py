"""Root-mean-square normalization with a fast backward pass on CPUs.

torch has a fused kernel on GPUs only; on a CPU its backward pass is a chain of ten elementwise passes. This implementation
needs one fused kernel and two elementwise passes: with a mean of zero, the backward kernel of layer normalization computes
the gradient of RMS normalization except for one term per vector, which is added.

Shapes: N vectors, D features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["rms_norm"]


def rms_norm(x: Tensor, weight_D: Tensor | None, eps: float) -> Tensor:
    """Compute x / √(mean(x²) + eps) · weight over the last dimension, in fp32; the result has x's dtype.

    Args:
        x: (…, D).
        weight_D: the weight of each feature, or None for ones.
        eps: added to the mean square.
    """
    if (
        x.requires_grad
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and (weight_D is None or weight_D.dtype == torch.float32)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    ):
        result: Tensor = _RMSNorm.apply(x, weight_D, eps)  # type: ignore[no-untyped-call]
        return result
    if weight_D is not None and weight_D.dtype != x.dtype:
        # Mixed dtypes have no fused kernel: compute in fp32 and round once at the end.
        return F.rms_norm(x.float(), x.shape[-1:], weight_D.float(), eps).to(x.dtype)
    return F.rms_norm(x, x.shape[-1:], weight_D, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor | None, eps: float) -> Tensor:
        x_ND = x.reshape(-1, x.shape[-1])
        scale_N1 = torch.linalg.vector_norm(x_ND, dim=1, keepdim=True)
        scale_N1.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_ND, scale_N1, weight_D)
        y_ND = x_ND * scale_N1
        if weight_D is not None:
            y_ND.mul_(weight_D)
        y: Tensor = y_ND.view(x.shape)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_ND, scale_N1, weight_D = ctx.saved_tensors
        grad_ND = grad.reshape(x_ND.shape)
        zero_N1 = torch.zeros_like(scale_N1)
        need_weight = weight_D is not None and ctx.needs_input_grad[1]
        grad_x_ND, grad_weight_D, _ = torch.ops.aten.native_layer_norm_backward(
            grad_ND, x_ND, x_ND.shape[1:], zero_N1, scale_N1, weight_D, None, [True, need_weight, False]
        )
        # Layer normalization's gradient includes the mean, which is not subtracted here: remove that term.
        if weight_D is None:
            mean_N1 = grad_ND.mean(1, keepdim=True)
        else:
            mean_N1 = torch.mv(grad_ND, weight_D)[:, None].div_(x_ND.shape[1])
        grad_x_ND.add_(mean_N1.mul_(scale_N1))
        return grad_x_ND.view(grad.shape), grad_weight_D if need_weight else None, None
