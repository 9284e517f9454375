"""Position `fire`.

Shapes: B batch, H heads, T queries, S keys, W width of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.initial import Initial
from gptkit.nn.position import Position, at
from gptkit_research.distance import distances

__all__ = ["FirePosition", "FireSpec"]


class FireSpec(PositionSpec):
    """FIRE: a small network maps the distance, normalized by the query's position, to a bias of each head.

    Formula:
        score[h, t, s] += f_h(ψ(t − s) / ψ(max(t, L))),  ψ(x) = log(|c| x + 1)
        f = W_2 relu(W_1 · + b_1) + b_2
    Shapes:
        bias (H, T, S); W_1 (width, 1), W_2 (H, width)
    Paper:
        https://arxiv.org/abs/2310.04418
    Notes:
        c and L are learned. From position L on, distances are divided by the query's position, so that the network's input
        is between 0 and 1 in texts of any length; the bias then depends on the position, too. As a score function (flex
        attention), the network is evaluated for each score.
    """

    name: Literal["fire"] = "fire"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})
    score_function: ClassVar[bool] = True
    depends_on_position: ClassVar[bool] = True
    examples = ({}, {"threshold": 4, "width": 8, "shared": True})

    width: int = Field(32, ge=1, description="Hidden features of the network.")
    c: float = Field(0.1, gt=0, description="The initial c.")
    threshold: float = Field(512.0, gt=0, description="The initial L, in tokens.")
    shared: bool = Field(False, description="Share one network among all layers (the paper's FIRE-S).")

    def build(self, context: BuildContext, *, heads: HeadShape) -> FirePosition:
        if self.shared:
            return context.share(("fire", self, heads.n_heads), lambda: FirePosition(self, heads.n_heads))
        return FirePosition(self, heads.n_heads)


class FirePosition(Position):
    """Runtime part of `FireSpec`."""

    def __init__(self, spec: FireSpec, n_heads: int) -> None:
        super().__init__()
        self.start_c, self.start_threshold = spec.c, spec.threshold
        self.inner = nn.Linear(1, spec.width)
        self.outer = nn.Linear(spec.width, n_heads)
        self.c = nn.Parameter(torch.tensor([spec.c]))
        self.stretch = nn.Parameter(torch.ones(1))
        """L divided by its initial value, so that the learning rate of the other parameters suits it."""

    def initial(self) -> dict[str, Initial]:
        # As torch initializes linear layers, so that the thresholds of the ReLUs are in the inputs' range, 0 to 1.
        return {
            "inner.weight": _spread,
            "inner.bias": _spread,
            "outer.weight": _spread,
            "c": lambda shape, generator: torch.full(shape, self.start_c),
            "stretch": "ones",
        }

    def _growth(self, query_positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return |c|, and the divisor of ψ(distance) for each query, in fp32 at least."""
        wide = torch.promote_types(self.c.dtype, torch.float32)
        c = self.c.to(wide).abs()
        threshold = self.stretch.to(wide).abs() * self.start_threshold
        reach = torch.maximum(query_positions.to(wide), threshold)
        # The small number prevents a division by zero if c is 0.
        return c, torch.log1p(c * reach) + 1e-6

    def score_mod(self, query_positions: Tensor, key_positions: Tensor) -> Callable[..., Tensor]:
        c_1, divisor = self._growth(query_positions)
        dtype = self.inner.weight.dtype

        def add(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            distance = (at(query_positions, row, query) - at(key_positions, row, key)).clamp_min(0).to(c_1.dtype)
            share = (torch.log1p(c_1[0] * distance) / at(divisor, row, query)).to(dtype)
            term = self.outer.bias[head]
            # A score function computes single numbers, so the matrix product is a sum over hidden features.
            for feature in range(self.inner.out_features):
                hidden = F.relu(self.inner.weight[feature, 0] * share + self.inner.bias[feature])
                term = term + self.outer.weight[head, feature] * hidden
            return score + term

        return add

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        c_1, divisor = self._growth(query_positions)
        distance_B1TS = distances(query_positions, key_positions).to(c_1.dtype)
        share_B1TS = torch.log1p(c_1 * distance_B1TS) / divisor.view(-1, 1, query_positions.shape[-1], 1)
        hidden_BTSW = F.relu(self.inner(share_B1TS[:, 0, :, :, None].to(self.inner.weight.dtype)))
        return self.outer(hidden_BTSW).movedim(-1, 1)  # type: ignore[no-any-return]


def _spread(shape: torch.Size, generator: torch.Generator) -> Tensor:
    bound = 1.0 if len(shape) == 1 else shape[1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
