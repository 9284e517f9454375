"""Module of norm `l2-clip`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.norm.l2_clip import L2ClipSpec

__all__ = ["L2Clip"]


class L2Clip(nn.Module):
    """A weight of each feature and a bound on the length; computed in fp32 or wider."""

    def __init__(self, spec: L2ClipSpec, dim: int) -> None:
        super().__init__()
        self.bound, self.eps = spec.bound, spec.eps
        self.weight = nn.Parameter(torch.ones(dim)) if spec.scale else None

    def initial(self) -> dict[str, Initial]:
        return {} if self.weight is None else {"weight": "ones"}

    def forward(self, x: Tensor) -> Tensor:
        u = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.weight is not None:
            u = u * self.weight.to(u.dtype)
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        y: Tensor = u * (self.bound / (length + self.eps)).clamp(max=1.0)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"bound={self.bound}, eps={self.eps}"
