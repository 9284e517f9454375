"""Learned factors and terms of each feature, in the place of a norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import Name, WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.norm.modules.affine import AffineNorm

__all__ = ["AffineNormSpec"]


class AffineNormSpec(NormSpec):
    """Multiply each feature by a weight and add a bias, without statistics of the vector (Aff of ResMLP).

    Formula:
        y = w ⊙ x + b; with `bias: before`, y = w ⊙ (x + b); with `bias: none`, y = w ⊙ x
        With `shared`, w and b are one number each, for all features

    Shapes:
        (…, dim) → (…, dim); w and b: (dim,), or (1,) with `shared`

    Paper:
        https://arxiv.org/abs/2105.03404

    Notes:
        It does not bound the size of vectors. ZAYA1 applies it, with `bias: before`, to the embedding, to the residual
        stream and to the outputs of branches, beside RMS norms of the branches' inputs. `shared`, without a bias, is a
        learned factor of a vector, as of a feed-forward's output in Inkling.
    """

    formula: ClassVar[str] = r"y = w \odot x + b"

    name: Literal["affine"] = "affine"
    bias: Literal["after", "before", "none"] = Field(
        "after", description="Add the bias after the multiplication by the weight, or before it, or not at all."
    )

    shared: bool = Field(False, description="One weight and one bias for all features (Inkling).")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"bias": "before"},
        {"bias": "none"},
        {"bias": "none", "shared": True},
        {"shared": True},
    )

    def build(self, context: BuildContext, *, dim: int) -> AffineNorm:
        from gptkit.components.norm.modules.affine import AffineNorm

        return AffineNorm(self, dim)

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        from gptkit.components.norm.written.affine import affine

        return affine(self, dim)
