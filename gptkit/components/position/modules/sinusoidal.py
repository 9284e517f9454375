"""Runtime of `sinusoidal`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.position import Position

if TYPE_CHECKING:
    from gptkit.components.position.sinusoidal import SinusoidalSpec

__all__ = ["SinusoidalPosition"]


class SinusoidalPosition(Position):
    """Runtime of `sinusoidal`."""

    def __init__(self, spec: SinusoidalSpec, context: BuildContext) -> None:
        super().__init__()
        self.base, self.scale, self.d_model = spec.base, spec.scale, context.d_model

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        exponents = torch.arange(0, self.d_model, 2, device=x_BTE.device).float() / self.d_model
        angles = positions[..., None].float() * self.base**-exponents
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2) * self.scale
        return x_BTE + table.to(x_BTE.dtype)
