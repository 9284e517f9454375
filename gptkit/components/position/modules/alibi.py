"""Runtime of `alibi`.

Shapes: B batch, H heads, T queries, S keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.kinds.position import HeadShape
from gptkit.nn.position import Position, at

if TYPE_CHECKING:
    from gptkit.components.position.alibi import AlibiSpec

__all__ = ["AlibiPosition"]


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

    def score_mod(self, query_positions: Tensor, key_positions: Tensor) -> Callable[..., Tensor]:
        if self.rounded is not None:
            slopes, factor = self.rounded
            rounded_H = torch.tensor(slopes, device=key_positions.device).bfloat16()

            def add_rounded(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return score + (rounded_H[head] * at(key_positions, row, key)).float() * factor

            return add_rounded
        slopes_H = torch.tensor(self.slopes, device=key_positions.device)

        def add(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return score - slopes_H[head] * (at(query_positions, row, query) - at(key_positions, row, key))

        return add

    @staticmethod
    def _rounded_bias(query_positions: Tensor, key_positions: Tensor, slopes: list[float], factor: float) -> Tensor:
        slopes_H1 = torch.tensor(slopes, device=key_positions.device).bfloat16()[:, None]
        # A term per key: a term that is equal for all keys of a query would cancel in the softmax, so it is not subtracted.
        # The product of two bf16 numbers is exact in fp32, and ONNX Runtime multiplies fp32 only.
        product = slopes_H1.float() * key_positions[..., None, :].bfloat16().float()
        term = product.bfloat16().float() * factor
        n_queries = query_positions.shape[-1]
        term_BH1S = term[:, :, None] if term.dim() == 3 else term[None, :, None]
        return term_BH1S.expand(-1, -1, n_queries, -1)
