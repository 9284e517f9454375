"""Module of norm `affine`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.norm.affine import AffineNormSpec

__all__ = ["AffineNorm"]


class AffineNorm(nn.Module):
    """A weight and a bias of each feature, or of all; computed in the wider of the dtypes of input and weight."""

    def __init__(self, spec: AffineNormSpec, dim: int) -> None:
        super().__init__()
        self.before = spec.bias == "before"
        n_weights = 1 if spec.shared else dim
        self.weight = nn.Parameter(torch.ones(n_weights))
        self.bias = None if spec.bias == "none" else nn.Parameter(torch.zeros(n_weights))

    def initial(self) -> dict[str, Initial]:
        return {"weight": "ones"} if self.bias is None else {"weight": "ones", "bias": "zeros"}

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return (x * self.weight).to(x.dtype)
        y = (x + self.bias) * self.weight if self.before else torch.addcmul(self.bias, x, self.weight)
        return y.to(x.dtype)
