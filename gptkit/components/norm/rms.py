"""Root-mean-square normalization, in the forms that model families use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import Name, WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.norm.modules.rms import RMSNorm

__all__ = ["RMSNormSpec"]


class RMSNormSpec(NormSpec):
    """Divide every vector by its root mean square and multiply by a weight; no mean is subtracted and no bias added.

    Formula:
        y = x / √(mean(x²) + eps) · (offset + weight)

    Shapes:
        (…, dim) → (…, dim); weight: (dim,)

    Paper:
        https://arxiv.org/abs/1910.07467

    Notes:
        Families differ in two details that matter in bf16 and for imported weights. Llama casts the normalized vector to the
        input's dtype and then multiplies (`cast: before`); Gemma, OLMo 2 and gpt-oss multiply in fp32 and cast last
        (`cast: after`). Gemma also stores the weight minus one (`offset: 1`).
    """

    formula: ClassVar[str] = r"y = \frac{x}{\sqrt{\operatorname{mean}(x^2) + \epsilon}} \odot (o + w)"

    name: Literal["rms"] = "rms"
    eps: float = Field(1e-5, description="Added to the mean square, to avoid division by zero.", gt=0)
    scale: bool = Field(True, description="Multiply by a weight for each feature.")
    offset: Literal[0, 1] = Field(0, description="1 where the weight is stored as w and applied as 1 + w.")
    cast: Literal["before", "after"] = Field(
        "before", description="Cast to the input's dtype `before` or `after` the multiplication by the weight."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"scale": False},
        {"offset": 1, "cast": "after"},
        {"cast": "after"},
    )

    def build(self, context: BuildContext, *, dim: int) -> RMSNorm:
        from gptkit.components.norm.modules.rms import RMSNorm

        return RMSNorm(self, dim)

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        from gptkit.components.norm.written.rms import written

        return written(self, dim)
