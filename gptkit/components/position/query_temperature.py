"""`query-temperature`: attention that grows sharper with the length of the text.

Shapes: B batch, H heads, T queries, D head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.position import Position

__all__ = ["QueryTemperature", "QueryTemperatureSpec"]


class QueryTemperatureSpec(PositionSpec):
    """Scales a query by the logarithm of its position, so that attention stays sharp over many tokens.

    Formula:
        q_t ← q_t · (1 + strength · ln(1 + ⌊(t + 1) / interval⌋)),  t from 0

    Shapes:
        q (B, n_heads, T, d_head) → the same; keys stay as they are

    Paper:
        https://arxiv.org/abs/2501.19399

    Notes:
        For layers that otherwise know no position (Llama 4). `latent` attention scales only the rotated features by it.
    """

    name: Literal["query-temperature"] = "query-temperature"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})
    depends_on_place: ClassVar[bool] = True

    strength: float = Field(0.1, gt=0, description="Factor of the logarithm.")
    interval: int = Field(8192, ge=1, description="Tokens after which the scale rises by a step, the first one included.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"strength": 0.5, "interval": 4})

    def build(self, context: BuildContext, *, heads: HeadShape) -> QueryTemperature:
        return context.share(("query-temperature", self), lambda: QueryTemperature(self))

    def describe(self) -> str:
        return f"query temperature {self.strength:g} per ln of {self.interval} tokens"


class QueryTemperature(Position):
    """Runtime of `query-temperature`."""

    def __init__(self, spec: QueryTemperatureSpec) -> None:
        super().__init__()
        self.strength, self.interval = spec.strength, spec.interval

    def prepare(self, positions: Tensor) -> Tensor:
        """(T, 1), or (B, 1, T, 1) where rows differ."""
        steps = torch.floor((positions.float() + 1) / self.interval)
        factor = (1 + self.strength * torch.log1p(steps))[..., None]
        return factor[:, None] if positions.dim() == 2 else factor

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        return (q_BHTD * prepared).to(q_BHTD.dtype), k_BKTD
