"""Position `pope`.

Shapes: B batch, H query heads, K key heads, T tokens, D head size.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.initial import Initial
from gptkit.nn.position import Position

__all__ = ["PopePosition", "PopeSpec"]


class PopeSpec(PositionSpec):
    """Polar coordinate position embedding (PoPE): features are the radii, and positions the angles, of polar coordinates.

    Formula:
        score[t, s] = scale · Σ_c softplus(q_tc) softplus(k_sc) cos((s − t) θ_c + δ_c),  θ_c = base^(−c / d_head), c from 0
    Shapes:
        q (B, n_heads, T, d_head), k (B, n_kv_heads, T, d_head) → width 2 · d_head; δ (n_kv_heads, d_head), in [−2π, 0]
    Paper:
        https://arxiv.org/abs/2509.10534
    """

    name: Literal["pope"] = "pope"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width"})
    base: float = Field(10000.0, gt=1, description="Approximate ratio of the longest to the shortest wavelength.")

    def rotated_width(self, d_head: int) -> int:
        return 2 * d_head

    def build(self, context: BuildContext, *, heads: HeadShape) -> PopePosition:
        return PopePosition(self, heads)


class PopePosition(Position):
    """Runtime part of `PopeSpec`: the cosine parts of all features, then the sine parts."""

    def __init__(self, spec: PopeSpec, heads: HeadShape) -> None:
        super().__init__()
        self.base, self.d_head = spec.base, heads.d_head
        self.delta = nn.Parameter(torch.zeros(heads.n_kv_heads, heads.d_head))

    def initial(self) -> dict[str, Initial]:
        return {"delta": "zeros"}

    def prepare(self, positions: Tensor) -> Tensor:
        """Return the angles, (T, D), or (B, 1, T, D) if rows differ."""
        frequencies = self.base ** (-torch.arange(self.d_head, device=positions.device).float() / self.d_head)
        angles = positions[..., None].float() * frequencies
        return angles[:, None] if positions.dim() == 2 else angles

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        delta_K1D = self.delta.clamp(-2 * math.pi, 0)[:, None]
        return _polar(F.softplus(q_BHTD), prepared), _polar(F.softplus(k_BKTD), prepared + delta_K1D)


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=-1).to(radius.dtype)
