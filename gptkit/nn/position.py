"""The runtime contract of kind `position`.

Shapes: B batch, H heads, T queries, S keys, D head size, E model width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["Position"]


class Position(nn.Module):
    """The runtime part of a position: hooks, each doing nothing by default. A position overrides those it uses.

    `positions` are (T,) where all rows agree or (B, T); key positions are negative for padding.
    """

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        """Absolute: add to (or change) the token embeddings."""
        return x_BTE

    def prepare(self, positions: Tensor) -> Any:
        """Whatever `rotate` needs of this call's positions (sines and cosines, say). Once a call, shared by layers."""
        return None

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        """Relative: turn this call's queries and keys before their dot product. K is n_heads or n_kv_heads."""
        return q_BHTD, k_BKTD

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: a term added to the scaled scores, (1 or B, H, T, S). Computed once a call and shared by layers."""
        return None

    def content_bias(self, q_BHTD: Tensor, k_BHSD: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: a term that depends on queries or keys too, added to the scaled scores, (B, H, T, S).

        Queries come already multiplied by the score scale. Keys have n_heads heads. A term for query t and key s may
        read keys at or before t only.
        """
        return None

    def value_bias(self, weights_BHTS: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """Relative: a term added to each head's output, (B, H, T, D), from the attention weights."""
        return None
