"""Terms of scores that depend on the token of the query and on the distance of the key.

Shapes: B batch, H query heads, T queries, S keys, E model width, R relative features of a head, L distances.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.initial import Initial
from gptkit.nn.parameters import ParameterOptions

__all__ = ["RelativeLogits"]


class RelativeLogits(nn.Module):
    """Terms r_t · table[:, t − s] of the scores, with r = W_r x for each head, and 0 from the distance L on.

    Args:
        context: the build context, inside a layer.
        n_heads: H.
        width: R.
        extent: L.
        norm: norm of the features of heads, (…, H, R); None without one.
    """

    def __init__(self, context: BuildContext, n_heads: int, width: int, extent: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.width, self.extent = width, extent
        self.features = context.linear(context.d_model, n_heads * width, bias=False)
        """Rows: the features of each head."""
        self.table = nn.Parameter(torch.empty(width, extent))
        """Profiles over distances, (R, L), which the features of a head mix."""
        self.norm = norm

    def initial(self) -> dict[str, Initial]:
        return {"table": "embedding"}

    def parameter_options(self) -> dict[str, ParameterOptions]:
        # A table of profiles, not a matrix between hidden layers.
        return {"table": ParameterOptions(hidden=False)}

    def queries(self, x_BTE: Tensor) -> Tensor:
        """Return the relative features of each head, (B, H, T, R)."""
        r_BTHR = torch.unflatten(self.features(x_BTE), -1, (-1, self.width))
        return (r_BTHR if self.norm is None else self.norm(r_BTHR)).transpose(1, 2)

    def forward(self, r_BHTR: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """Return the terms of the scores, (B, H, T, S).

        Args:
            r_BHTR: what `queries` returned.
            query_positions: (T,) or (B, T).
            key_positions: (S,) or (B, S).
        """
        by_distance_BHTL = F.pad(r_BHTR @ self.table.to(r_BHTR.dtype), (0, 1))  # 0 for all longer distances
        distance = (query_positions[..., :, None] - key_positions[..., None, :]).clamp(0, self.extent)
        index = distance[:, None] if distance.dim() == 3 else distance[None, None]
        return by_distance_BHTL.gather(-1, index.expand(*by_distance_BHTL.shape[:3], -1))
