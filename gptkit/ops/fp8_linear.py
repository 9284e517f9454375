"""Linear layer whose three products are computed in 8-bit floating point.

Each tensor has one scale, computed from its largest absolute value at every call: x ≈ scale · x₈, where the largest number
of the 8-bit type represents the largest of x. Inputs and weights are in e4m3, which is more precise, gradients in e5m2,
which has a larger range. The products are summed in fp32 and returned in bf16. Source: FP8 Formats for Deep Learning
(arXiv 2209.05433).

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["ALIGNED", "fp8_linear", "has_fp8"]

ALIGNED = 16
"""Inputs and outputs of the layer must be multiples of this; rows are padded to one."""

_PRECISE, _WIDE = torch.float8_e4m3fn, torch.float8_e5m2


def has_fp8(device: torch.device) -> bool:
    """Return whether torch computes products of 8-bit floating point on this device."""
    try:
        one = torch.ones(ALIGNED, ALIGNED, device=device).to(_PRECISE)
        _product(one, one, *torch.ones(2, 1, device=device).unbind())
    except (RuntimeError, NotImplementedError):
        return False
    return True


def fp8_linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Compute x Wᵀ + b; the product and those of its gradients in 8-bit floating point.

    Args:
        x: (..., I), in any dtype.
        weight_OI: the weight; I and O are multiples of 16.
        bias_O: the bias, added in bf16.

    Returns:
        (..., O), in bf16. It can be differentiated once.
    """
    x_NI = x.reshape(-1, x.shape[-1])
    n_rows = x_NI.shape[0]
    padding = -n_rows % ALIGNED  # the rows are summed over in the weight's gradient
    if padding:
        x_NI = F.pad(x_NI, (0, 0, 0, padding))
    y_NO: Tensor = _Fp8Linear.apply(x_NI, weight_OI)  # type: ignore[no-untyped-call]
    y = y_NO[:n_rows].reshape(*x.shape[:-1], weight_OI.shape[0])
    return y if bias_O is None else y + bias_O.to(y.dtype)


class _Fp8Linear(torch.autograd.Function):
    """Keep the 8-bit factors for the backward pass: half the memory of bf16."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor) -> Tensor:
        x8_NI, x_scale = _quantize(x_NI, _PRECISE)
        weight8_OI, weight_scale = _quantize(weight_OI, _PRECISE)
        ctx.save_for_backward(x8_NI, x_scale, weight8_OI, weight_scale)
        ctx.dtypes = x_NI.dtype, weight_OI.dtype
        return _product(x8_NI, weight8_OI, x_scale, weight_scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x8_NI, x_scale, weight8_OI, weight_scale = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        grad8_NO, grad_scale = _quantize(grad_NO, _WIDE)
        need_x, need_weight = ctx.needs_input_grad
        grad_x_NI = grad_weight_OI = None
        if need_x:
            grad_x_NI = _product(grad8_NO, _turned(weight8_OI), grad_scale, weight_scale).to(x_dtype)
        if need_weight:
            grad_weight_OI = _product(_turned(grad8_NO), _turned(x8_NI), grad_scale, x_scale).to(weight_dtype)
        return grad_x_NI, grad_weight_OI


def _quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return x / scale in an 8-bit type, and the scale, a scalar in fp32."""
    largest = torch.finfo(dtype).max
    scale = x.abs().amax().float().clamp_min(1e-30) / largest
    # A value above the largest one becomes NaN in the conversion; division may round up to it.
    return (x.float() / scale).clamp(-largest, largest).to(dtype), scale


def _product(a_NK: Tensor, b_MK: Tensor, a_scale: Tensor, b_scale: Tensor) -> Tensor:
    """Return a bᵀ in bf16; GPUs require that both factors are stored along the dimension that is summed over."""
    result: Tensor = torch._scaled_mm(a_NK, b_MK.t(), scale_a=a_scale, scale_b=b_scale, out_dtype=torch.bfloat16)
    return result


def _turned(x: Tensor) -> Tensor:
    return x.t().contiguous()
