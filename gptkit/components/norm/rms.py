"""Root-mean-square normalisation, in the forms that model families use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.nn.initial import Initial
from gptkit.ops.rms_norm import rms_norm

__all__ = ["RMSNorm", "RMSNormSpec"]


class RMSNormSpec(NormSpec):
    """Divides every vector by its root mean square, then scales each feature; no mean is taken off and nothing added.

    Formula:
        y = x / √(mean(x²) + eps) · (offset + weight)

    Shapes:
        (…, dim) → (…, dim); weight: (dim,)

    Paper:
        https://arxiv.org/abs/1910.07467

    Notes:
        Families differ in two details that matter in bf16 and for imported weights. Llama casts the normalised vector
        back to the input's dtype and then multiplies (`cast: before`); Gemma, OLMo 2 and gpt-oss multiply in fp32 and
        cast last (`cast: after`). Gemma also stores its weight less one (`offset: 1`).
    """

    name: Literal["rms"] = "rms"
    eps: float = Field(1e-5, description="Added to the mean square, so that nothing is divided by zero.", gt=0)
    scale: bool = Field(True, description="Multiply by a weight for each feature.")
    offset: Literal[0, 1] = Field(0, description="1 where the weight is stored as w and applied as 1 + w.")
    cast: Literal["before", "after"] = Field(
        "before", description="Return to the input's dtype `before` multiplying by the weight, or `after` it."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"scale": False},
        {"offset": 1, "cast": "after"},
        {"cast": "after"},
    )

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return RMSNorm(self, dim)


class RMSNorm(nn.Module):
    """The runtime part of `RMSNormSpec`."""

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
            # Two roundings, as Llama does it: to the input's dtype, and again after the product.
            normalised = rms_norm(x, None, self.eps)
            return (normalised * (weight + self.offset if self.offset else weight)).to(x.dtype)
        if self.offset:
            # In fp32 even where weights are narrower: 1 + w would lose the digits of a small w.
            weight = (weight if weight.dtype == x.dtype == torch.float64 else weight.float()) + self.offset
        return rms_norm(x, weight, self.eps)

    def extra_repr(self) -> str:
        shape = "" if self.weight is None else f"{self.weight.shape[0]}, "
        return f"{shape}eps={self.eps}"
