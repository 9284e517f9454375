"""Module of layer normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.norm.layer import LayerNormSpec

__all__ = ["LayerNorm"]


class LayerNorm(nn.Module):
    """Layer normalization in one fused kernel; statistics are computed in fp32 for every dtype of the input."""

    def __init__(self, spec: LayerNormSpec, dim: int) -> None:
        super().__init__()
        self.shape = (dim,)
        self.eps = spec.eps
        self.offset = spec.offset
        self.weight = nn.Parameter(torch.full((dim,), 1 - spec.offset)) if spec.scale else None
        self.bias = nn.Parameter(torch.zeros(dim)) if spec.shift else None

    def initial(self) -> dict[str, Initial]:
        first = _constant(1 - self.offset)
        return ({"weight": first} if self.weight is not None else {}) | ({"bias": "zeros"} if self.bias is not None else {})

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor | None = self.weight
        if self.offset and weight is not None:
            weight = weight + self.offset
        if weight is None and self.bias is not None and self.bias.dtype != x.dtype:
            # On a CPU, torch has no gradient of a bias in fp32 beside an input in bf16 without a weight.
            weight = torch.ones_like(self.bias)
        y = torch.layer_norm(x, self.shape, weight, self.bias, self.eps)
        return y if y.dtype == x.dtype else y.to(x.dtype)  # autocast computes in fp32

    def extra_repr(self) -> str:
        return f"{self.shape[0]}, eps={self.eps}"


def _constant(value: float) -> Initial:
    if value == 1:
        return "ones"
    if value == 0:
        return "zeros"
    return lambda shape, generator: torch.full(shape, value, device=generator.device)
