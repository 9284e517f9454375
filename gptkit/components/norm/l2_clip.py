"""Bound on the length of vectors, in the place of a norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import Name, WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.norm.modules.l2_clip import L2Clip

__all__ = ["L2ClipSpec"]


class L2ClipSpec(NormSpec):
    """Multiply each feature by a weight, and shorten vectors that are longer than a bound (Inkling 2).

    Formula:
        u = w ⊙ x;  y = u · min(1, bound / (‖u‖₂ + eps))

    Shapes:
        (…, dim) → (…, dim); weight: (dim,)

    Notes:
        Shorter vectors remain as they are, so that, unlike after a norm, their length has a meaning. As the norm of queries
        and keys, it bounds every score: to bound² / √d_head without another scale. Computed in fp32.
    """

    formula: ClassVar[str] = r"u = w \odot x \qquad y = u \cdot \min\left(1, \frac{c}{\lVert u \rVert_2 + \epsilon}\right)"

    name: Literal["l2-clip"] = "l2-clip"
    bound: float = Field(8.0, description="Length to which longer vectors are shortened (Inkling 2: √512 and 8).", gt=0)
    scale: bool = Field(True, description="Multiply by a weight for each feature.")
    eps: float = Field(1e-6, description="Added to the length, to avoid division by zero.", gt=0)

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"bound": 1.5}, {"bound": 0.7, "scale": False})

    def build(self, context: BuildContext, *, dim: int) -> L2Clip:
        from gptkit.components.norm.modules.l2_clip import L2Clip

        return L2Clip(self, dim)

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        from gptkit.components.norm.written.l2_clip import l2_clip

        return l2_clip(self, dim)
