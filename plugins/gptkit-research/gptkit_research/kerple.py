"""Position `kerple`.

Shapes: B batch, H heads, T queries, S keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.initial import Initial
from gptkit.nn.position import Position, at
from gptkit_research.distance import distances

__all__ = ["KerplePosition", "KerpleSpec"]


class KerpleSpec(PositionSpec):
    """KERPLE: a bias that decreases with the logarithm (or a power) of the distance, with learned parameters of each head.

    Formula:
        log:    score[h, t, s] −= r1_h · log(1 + r2_h · (t − s)),  r1, r2 > 0
        power:  score[h, t, s] −= r1_h · (t − s)^r2_h,  r1 > 0, 0 < r2 ≤ 2
    Shapes:
        bias (H, T, S); two parameters per head
    Paper:
        https://arxiv.org/abs/2205.09921
    Notes:
        The parameters are logarithms (r2 of `power` is a logit), whereas the paper clamps them to a small number, at which
        they have no gradient. Their initialization is uniform, r1 up to 2 and r2 up to 1, as in the paper.
    """

    name: Literal["kerple"] = "kerple"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})
    score_function: ClassVar[bool] = True
    examples = ({}, {"form": "power"}, {"shared": True})

    form: Literal["log", "power"] = Field("log", description="The kernel; `log` is better in the paper's experiments.")
    shared: bool = Field(False, description="Share one set of parameters among all layers.")

    def build(self, context: BuildContext, *, heads: HeadShape) -> KerplePosition:
        if self.shared:
            return context.share(("kerple", self, heads.n_heads), lambda: KerplePosition(self, heads.n_heads))
        return KerplePosition(self, heads.n_heads)


class KerplePosition(Position):
    """Runtime part of `KerpleSpec`."""

    def __init__(self, spec: KerpleSpec, n_heads: int) -> None:
        super().__init__()
        self.power = spec.form == "power"
        self.r1 = nn.Parameter(torch.zeros(n_heads))
        self.r2 = nn.Parameter(torch.zeros(n_heads))

    def initial(self) -> dict[str, Initial]:
        return {"r1": lambda shape, generator: _uniform(shape, generator).mul(2).log(), "r2": self._initial_r2}

    def _initial_r2(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        r2 = _uniform(shape, generator)
        return (r2 / 2).logit() if self.power else r2.log()

    def score_mod(self, query_positions: Tensor, key_positions: Tensor) -> Callable[..., Tensor]:
        wide = torch.promote_types(self.r1.dtype, torch.float32)
        r1_H, r2_H = self.r1.to(wide).exp(), self.r2.to(wide)
        power_H = 2 * r2_H.sigmoid() if self.power else r2_H.exp()

        def add(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            distance = (at(query_positions, row, query) - at(key_positions, row, key)).clamp_min(0).to(wide)
            kernel = distance ** power_H[head] if self.power else torch.log1p(power_H[head] * distance)
            return score - r1_H[head] * kernel

        return add

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        wide = torch.promote_types(self.r1.dtype, torch.float32)
        r1_H11 = self.r1.to(wide).exp()[:, None, None]
        r2_H11 = self.r2.to(wide)[:, None, None]
        distance = distances(query_positions, key_positions).to(wide)
        if self.power:
            return -r1_H11 * distance ** (2 * r2_H11.sigmoid())
        return -r1_H11 * torch.log1p(r2_H11.exp() * distance)


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator).clamp_min(0.01)
