"""The torch module of `XieluSpec`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.activation.xielu import XieluSpec

__all__ = ["Xielu"]


class Xielu(nn.Module):
    """Module of `XieluSpec`."""

    def __init__(self, spec: XieluSpec) -> None:
        super().__init__()
        self.spec = spec
        self.positive = nn.Parameter(torch.empty(1))
        self.negative = nn.Parameter(torch.empty(1))
        self.beta = nn.Parameter(torch.empty(()), requires_grad=False)
        self.eps = nn.Parameter(torch.empty(()), requires_grad=False)

    def initial(self) -> dict[str, Initial]:
        spec = self.spec
        values = {"positive": _inverse_softplus(spec.positive), "beta": spec.beta, "eps": spec.eps}
        values["negative"] = _inverse_softplus(spec.negative - spec.beta)
        return {name: _constant(value) for name, value in values.items()}

    def forward(self, x: Tensor) -> Tensor:
        beta, eps = self.beta.to(x.dtype), self.eps.to(x.dtype)
        above = F.softplus(self.positive).to(x.dtype) * x * x
        below = (torch.expm1(torch.minimum(x, eps)) - x) * (self.beta + F.softplus(self.negative)).to(x.dtype)
        return torch.where(x > 0, above, below) + beta * x


def _constant(value: float) -> Initial:
    return lambda shape, generator: torch.full(shape, value)


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
