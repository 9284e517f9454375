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
        self.base, self.scale, self.offset = spec.base, spec.scale, spec.offset
        self.n_waves = context.d_model // 2
        self.steps = self.n_waves - 1 if spec.endpoint else self.n_waves
        self.halves = spec.layout == "half"

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        exponents = torch.arange(self.n_waves, device=x_BTE.device).float() / self.steps
        angles = (positions + self.offset)[..., None].float() * self.base**-exponents
        waves = angles.sin(), angles.cos()
        table = torch.cat(waves, dim=-1) if self.halves else torch.stack(waves, dim=-1).flatten(-2)
        return x_BTE + (table * self.scale).to(x_BTE.dtype)
