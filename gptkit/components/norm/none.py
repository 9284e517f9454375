"""`none`: no norm."""

from __future__ import annotations

from typing import Literal

from torch import nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec

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
        return nn.Identity()
