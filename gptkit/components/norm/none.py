"""Norm `none`: the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import Name, WritingContext, Written

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NoNormSpec"]


class NoNormSpec(NormSpec):
    """Identity, for models without norms and for ablations.

    Formula:
        y = x
    Shapes:
        (…, dim) → (…, dim)
    """

    formula: ClassVar[str] = r"y = x"

    name: Literal["none"] = "none"

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        from torch import nn

        return nn.Identity()

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        return Written("Identity", expression="nn.Identity()", section="norm")
