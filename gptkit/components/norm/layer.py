"""Layer normalization, with or without parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import Name, WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.norm.modules.layer import LayerNorm

__all__ = ["LayerNormSpec"]


class LayerNormSpec(NormSpec):
    """Normalize every vector to mean 0 and variance 1, then apply a weight and a bias to each feature.

    Formula:
        y = (x − mean(x)) / √(var(x) + eps) · (offset + weight) + bias
        The variance is the biased one: the sum of squares divided by the number of features.

    Shapes:
        (…, dim) → (…, dim); weight and bias: (dim,)

    Paper:
        https://arxiv.org/abs/1607.06450

    Notes:
        `shift: false` is the form without bias (MPT, Cohere); with `scale: false` as well it has no parameters (OLMo).
        Nemotron stores the weight minus one: `offset: 1`.
    """

    formula: ClassVar[str] = r"""
        y = \frac{x - \operatorname{mean}(x)}{\sqrt{\operatorname{var}(x) + \epsilon}} \odot (o + w) + b
    """

    name: Literal["layer"] = "layer"
    eps: float = Field(1e-5, description="Added to the variance, to avoid division by zero.", gt=0)
    scale: bool = Field(True, description="Multiply by a weight for each feature.")
    shift: bool = Field(True, description="Add a bias for each feature.")
    offset: float = Field(0.0, description="Added to the stored weight before it is applied; 1 where w − 1 is stored.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"shift": False},
        {"scale": False},
        {"scale": False, "shift": False},
        {"offset": 1.0},
    )

    def build(self, context: BuildContext, *, dim: int) -> LayerNorm:
        from gptkit.components.norm.modules.layer import LayerNorm

        return LayerNorm(self, dim)

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        from gptkit.components.norm.written.layer import written

        return written(self, dim)
