"""Runtime of `query-temperature`.

Shapes: B batch, H heads, T queries, D head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gptkit.nn.position import Position

if TYPE_CHECKING:
    from gptkit.components.position.query_temperature import QueryTemperatureSpec

__all__ = ["QueryTemperature"]


class QueryTemperature(Position):
    """Runtime of `query-temperature`."""

    def __init__(self, spec: QueryTemperatureSpec) -> None:
        super().__init__()
        self.growth, self.strength, self.interval = spec.growth, spec.strength, spec.interval

    def prepare(self, positions: Tensor) -> Tensor:
        """Return the factors, (T, 1), or (B, 1, T, 1) if positions differ between rows."""
        steps = (positions.float() + 1) / self.interval
        if self.growth == "power":
            factor = torch.pow(1 + steps, self.strength)[..., None]
        elif self.growth == "smooth":
            factor = (1 + self.strength * torch.log(steps.clamp_min(1)))[..., None]
        else:
            factor = (1 + self.strength * torch.log1p(torch.floor(steps)))[..., None]
        return factor[:, None] if positions.dim() == 2 else factor

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        return (q_BHTD * prepared).to(q_BHTD.dtype), k_BKTD

    def scale_unrotated(self, q_BHTN: Tensor, prepared: Any) -> Tensor:
        scaled: Tensor = (q_BHTN * prepared).to(q_BHTN.dtype)
        return scaled
