"""Root-mean-square normalisation, in the forms that model families use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec

if TYPE_CHECKING:
    from gptkit.components.norm.modules.rms import RMSNorm

__all__ = ["RMSNormSpec"]


class RMSNormSpec(NormSpec):
    """Divides every vector by its root mean square, then scales each feature; no mean is taken off and nothing added.

    Formula:
        y = x / √(mean(x²) + eps) · (offset + weight)

    Shapes:
        (…, dim) → (…, dim); weight: (dim,)

    Paper:
        https://arxiv.org/abs/1910.07467

    Notes:
        Families differ in two details that matter in bf16 and for imported weights. Llama casts the normalised vector
        back to the input's dtype and then multiplies (`cast: before`); Gemma, OLMo 2 and gpt-oss multiply in fp32 and
        cast last (`cast: after`). Gemma also stores its weight less one (`offset: 1`).
    """

    name: Literal["rms"] = "rms"
    eps: float = Field(1e-5, description="Added to the mean square, so that nothing is divided by zero.", gt=0)
    scale: bool = Field(True, description="Multiply by a weight for each feature.")
    offset: Literal[0, 1] = Field(0, description="1 where the weight is stored as w and applied as 1 + w.")
    cast: Literal["before", "after"] = Field(
        "before", description="Return to the input's dtype `before` multiplying by the weight, or `after` it."
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
