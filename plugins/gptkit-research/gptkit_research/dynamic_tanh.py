"""Norm `dynamic-tanh`."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.nn.initial import Initial

__all__ = ["DynamicTanh", "DynamicTanhSpec"]


class DynamicTanhSpec(NormSpec):
    """Dynamic tanh (DyT): an elementwise saturating function in place of a norm, without statistics.

    Formula:
        y = tanh(α x) · weight + bias

    Shapes:
        (…, dim) → (…, dim); α: (1,), weight and bias: (dim,)

    Paper:
        https://arxiv.org/abs/2503.10622

    Notes:
        The paper's language models initialize α lower in wider models, and higher in norms before attention (0.8 instead of
        0.2 at a width of 4096), and multiply the embeddings by a learned number, initially √d_model.
    """

    name: Literal["dynamic-tanh"] = "dynamic-tanh"
    alpha: float = Field(0.5, gt=0, description="The initial α.")
    shift: bool = Field(True, description="Add a bias for each feature.")
    examples = ({}, {"alpha": 0.8, "shift": False})

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return DynamicTanh(self, dim)


class DynamicTanh(nn.Module):
    """The runtime part of `DynamicTanhSpec`."""

    def __init__(self, spec: DynamicTanhSpec, dim: int) -> None:
        super().__init__()
        self.initial_alpha = spec.alpha
        self.alpha = nn.Parameter(torch.full((1,), spec.alpha))
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if spec.shift else None

    def initial(self) -> dict[str, Initial]:
        return {"alpha": lambda shape, generator: torch.full(shape, self.initial_alpha), "weight": "ones"}

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.alpha * x) * self.weight
        return (y if self.bias is None else y + self.bias).to(x.dtype)
