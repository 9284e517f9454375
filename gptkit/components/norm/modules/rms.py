"""Module of root-mean-square normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.nn.initial import Initial
from gptkit.ops.rms_norm import rms_norm

if TYPE_CHECKING:
    from gptkit.components.norm.rms import RMSNormSpec

__all__ = ["RMSNorm"]


class RMSNorm(nn.Module):
    """Root-mean-square normalization with an optional weight."""

    def __init__(self, spec: RMSNormSpec, dim: int) -> None:
        super().__init__()
        self.eps = spec.eps
        self.offset = spec.offset
        self.cast_first = spec.cast == "before"
        self.weight = nn.Parameter(torch.full((dim,), 1.0 - spec.offset)) if spec.scale else None

    def initial(self) -> dict[str, Initial]:
        return {} if self.weight is None else {"weight": "zeros" if self.offset else "ones"}

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor | None = self.weight
        if weight is None:
            return rms_norm(x, None, self.eps)
        if self.cast_first and x.dtype != torch.float32:
            # Rounded twice, as in Llama: to the input's dtype, and again after the product.
            normalized = rms_norm(x, None, self.eps)
            return (normalized * (weight + self.offset if self.offset else weight)).to(x.dtype)
        if self.offset:
            # In fp32 even for weights of lower precision, in which 1 + w would round a small w.
            weight = (weight if weight.dtype == x.dtype == torch.float64 else weight.float()) + self.offset
        return rms_norm(x, weight, self.eps)

    def extra_repr(self) -> str:
        shape = "" if self.weight is None else f"{self.weight.shape[0]}, "
        return f"{shape}eps={self.eps}"
