"""`alibi` relative positions.

Shapes: B batch, H heads, T queries, S keys.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.position import Position

__all__ = ["AlibiPosition", "AlibiSpec"]


class AlibiSpec(PositionSpec):
    """Attention with linear biases: a score falls with the distance, at a slope of each head's own.

    Formula:
        score[h, t, s] -= m_h · (t - s),  m_h = 2^(-8 (h + 1) / n)  for n heads, n a power of 2
        other n: the slopes of the next lower power of 2, then every other slope of the next higher
    Shapes:
        bias (H, T, S)
    Paper:
        https://arxiv.org/abs/2108.12409
    """

    name: Literal["alibi"] = "alibi"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})

    slope_order: Literal["appended", "strided"] = Field(
        "appended",
        description="For head counts that are no power of 2: as the paper's code has it, or as MPT has it.",
    )
    max_exponent: float = Field(8.0, gt=0, description="The last head's slope is 2 to the minus this.")
    scaled: bool = Field(False, description="Divide the bias by √d_head, as the dot products are (Falcon-RW).")
    rounded: bool = Field(
        False, description="Round slopes, and slopes times key positions, to bfloat16, as Falcon-RW was trained."
    )

    def build(self, context: BuildContext, *, heads: HeadShape) -> AlibiPosition:
        return context.share(("alibi", self, heads), lambda: AlibiPosition(self, heads))

    def slopes(self, n_heads: int) -> list[float]:
        """m_h for each head."""

        def geometric(count: int) -> list[float]:
            return [2.0 ** (-self.max_exponent * (h + 1) / count) for h in range(count)]

        lower = 2 ** math.floor(math.log2(n_heads))
        if lower == n_heads:
            return geometric(n_heads)
        doubled = geometric(2 * lower)
        if self.slope_order == "strided":
            return (doubled[1::2] + doubled[0::2])[:n_heads]
        return geometric(lower) + doubled[0::2][: n_heads - lower]

    def describe(self) -> str:
        return "alibi"


class AlibiPosition(Position):
    """Runtime of `alibi`."""

    def __init__(self, spec: AlibiSpec, heads: HeadShape) -> None:
        super().__init__()
        factor = heads.d_head**-0.5 if spec.scaled else 1.0
        self.slopes = [slope * factor for slope in spec.slopes(heads.n_heads)]
        self.rounded = (spec.slopes(heads.n_heads), factor) if spec.rounded else None

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        if self.rounded is not None:
            return self._rounded_bias(query_positions, key_positions, *self.rounded)
        distance = (query_positions[..., :, None] - key_positions[..., None, :]).float()
        slopes_H11 = torch.tensor(self.slopes, device=distance.device)[:, None, None]
        return -slopes_H11 * (distance[:, None] if distance.dim() == 3 else distance[None, None])

    @staticmethod
    def _rounded_bias(query_positions: Tensor, key_positions: Tensor, slopes: list[float], factor: float) -> Tensor:
        slopes_H1 = torch.tensor(slopes, device=key_positions.device).bfloat16()[:, None]
        # A key's own term; what all keys of a query have in common would cancel in the softmax, so none is taken off.
        term = (slopes_H1 * key_positions[..., None, :]).float() * factor
        n_queries = query_positions.shape[-1]
        term_BH1S = term[:, :, None] if term.dim() == 3 else term[None, :, None]
        return term_BH1S.expand(-1, -1, n_queries, -1)
