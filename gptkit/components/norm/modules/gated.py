"""Module of norm `gated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from gptkit.components.norm.gated import GatedNormSpec

__all__ = ["GatedNorm"]


class GatedNorm(nn.Module):
    """A norm, and gates of low rank that multiply its output; the sigmoid and the product are computed in fp32 or wider."""

    def __init__(self, spec: GatedNormSpec, context: BuildContext, dim: int) -> None:
        super().__init__()
        self.norm = spec.norm.build(context, dim=dim)
        self.down = nn.Linear(dim, spec.rank, bias=False)
        self.up = nn.Linear(spec.rank, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        gates: Tensor = self.up(F.silu(self.down(y.to(self.down.weight.dtype))))
        return (y * gates.to(torch.promote_types(y.dtype, torch.float32)).sigmoid()).to(y.dtype)
