"""Norm whose output is multiplied by gates of low rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import Name, WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.norm.modules.gated import GatedNorm

__all__ = ["GatedNormSpec"]


class GatedNormSpec(NormSpec):
    """Multiply each feature of a norm's output by a sigmoid gate, computed from this output by two matrices (GatedNorm).

    Formula:
        n = norm(x),  y = n ⊙ σ(W_up silu(W_down n))

    Shapes:
        (…, dim) → (…, dim); W_down: (rank, dim), W_up: (dim, rank)

    Paper:
        https://arxiv.org/abs/2601.22966

    Notes:
        The gates let a model rescale a vector without a few very large features, which a norm alone requires. A.X K2 has
        them in the norms before attention and before experts. The matrices are not projections: adapters and precisions
        for inference do not replace them.
    """

    formula: ClassVar[str] = r"""
        n = \operatorname{norm}(x) \qquad y = n \odot \sigma\left(W_{\text{up}} \operatorname{silu}(W_{\text{down}} n)\right)
    """

    name: Literal["gated"] = "gated"
    norm: NormSpec = component("rms", description="Norm that is applied first.")
    rank: int = Field(16, ge=1, description="Features between the two matrices of the gates.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"norm": "layer", "rank": 3})

    def build(self, context: BuildContext, *, dim: int) -> GatedNorm:
        from gptkit.components.norm.modules.gated import GatedNorm

        return GatedNorm(self, context, dim)

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        from gptkit.components.norm.written.gated import gated

        return gated(self, context, dim)
