"""Layer normalisation, with or without its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.nn.initial import Initial

__all__ = ["LayerNorm", "LayerNormSpec"]


class LayerNormSpec(NormSpec):
    """Brings every vector to mean 0 and variance 1, then scales and shifts each feature.

    Formula:
        y = (x − mean(x)) / √(var(x) + eps) · (offset + weight) + bias
        The variance divides by the number of features (it is the biased one).

    Shapes:
        (…, dim) → (…, dim); weight and bias: (dim,)

    Paper:
        https://arxiv.org/abs/1607.06450

    Notes:
        `shift: false` is the form without bias (MPT, Cohere); with `scale: false` as well it has no parameters at all
        (OLMo). Nemotron stores its weight less one: `offset: 1`.
    """

    name: Literal["layer"] = "layer"
    eps: float = Field(1e-5, description="Added to the variance, so that nothing is divided by zero.", gt=0)
    scale: bool = Field(True, description="Multiply by a weight for each feature.")
    shift: bool = Field(True, description="Add a bias for each feature.")
    offset: float = Field(0.0, description="Added to the stored weight before it is applied; 1 where w − 1 is stored.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"shift": False},
        {"scale": False},
        {"scale": False, "shift": False},
        {"offset": 1.0},
    )

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return LayerNorm(self, dim)


class LayerNorm(nn.Module):
    """The runtime part of `LayerNormSpec`: one fused kernel, statistics in fp32 whatever the input."""

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
        return F.layer_norm(x, self.shape, weight, self.bias, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.shape[0]}, eps={self.eps}"


def _constant(value: float) -> Initial:
    if value == 1:
        return "ones"
    if value == 0:
        return "zeros"
    return lambda shape, generator: torch.full(shape, value, device=generator.device)
