"""`none`: no norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NoNormSpec"]


class NoNormSpec(NormSpec):
    """Leaves vectors as they are: to see what norms are good for, or to look at an attention by itself.

    Formula:
        y = x
    Shapes:
        (…, dim) → (…, dim)
    """

    name: Literal["none"] = "none"

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        from torch import nn

        return nn.Identity()
