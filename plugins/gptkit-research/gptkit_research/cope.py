"""Position `cope`.

Shapes: B batch, H heads, T queries, S keys, D head size, N distinct positions.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.initial import Initial
from gptkit.nn.position import Position

__all__ = ["CopePosition", "CopeSpec"]


class CopeSpec(PositionSpec):
    """Contextual position encoding (CoPE): positions count tokens by gates that depend on query and key.

    Formula:
        g[t, s] = sigmoid(q_t · k_s),  p[t, s] = min(Σ_{s ≤ l ≤ t} g[t, l], n_positions − 1)
        score[t, s] += q_t · e[p[t, s]],  e interpolated between integer positions, q scaled
    Shapes:
        term (B, H, T, S); e (n_positions, d_head), shared by the heads of a layer
    Paper:
        https://arxiv.org/abs/2405.18719
    Notes:
        e is initialized as zeros, as in the paper's code. In a sliding window, positions are counted within the window.
    """

    name: Literal["cope"] = "cope"
    uses: ClassVar[frozenset[str]] = frozenset({"content_bias"})

    n_positions: int = Field(64, ge=2, description="Number of distinct positions; larger ones share the last.")

    def build(self, context: BuildContext, *, heads: HeadShape) -> CopePosition:
        return CopePosition(self, heads.d_head)


class CopePosition(Position):
    """Runtime part of `CopeSpec`."""

    def __init__(self, spec: CopeSpec, d_head: int) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.n_positions, d_head)

    def initial(self) -> dict[str, Initial]:
        return {"table.weight": "zeros"}

    def content_bias(self, q_BHTD: Tensor, k_BHSD: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        n_queries, n_keys = q_BHTD.shape[2], k_BHSD.shape[2]
        scores_BHTS = q_BHTD @ k_BHSD.transpose(-2, -1)
        wide = torch.promote_types(scores_BHTS.dtype, torch.float32)
        # The queries are the last keys. Later keys have a gate of 0, so that the sum from the last key is the sum from the
        # query; keys of other documents and padding precede all keys that a query may attend.
        gates_BHTS = scores_BHTS.to(wide).sigmoid().tril(n_keys - n_queries)
        # In a static cache the queries are not the last keys; the keys after them have later positions.
        earlier_TS = key_positions[..., None, :] <= query_positions[..., :, None]
        gates_BHTS = gates_BHTS * (earlier_TS[:, None] if earlier_TS.dim() == 3 else earlier_TS)
        counted_BHTS = gates_BHTS.flip(-1).cumsum(-1).flip(-1).clamp_max(self.table.num_embeddings - 1)
        below_BHTS = counted_BHTS.floor()
        share_BHTS = (counted_BHTS - below_BHTS).to(q_BHTD.dtype)
        terms_BHTN = q_BHTD @ self.table.weight.to(q_BHTD.dtype).T
        low = terms_BHTN.gather(-1, below_BHTS.long())
        high = terms_BHTN.gather(-1, counted_BHTS.ceil().long())
        return low + share_BHTS * (high - low)
