"""Truncated normal initialization."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec

if TYPE_CHECKING:
    from torch import Generator, Size, Tensor

    from gptkit.nn.initial import Role

__all__ = ["TruncatedNormalSpec"]


class TruncatedNormalSpec(InitializerSpec):
    """Normal distribution truncated at a multiple of its standard deviation (OLMo).

    Formula:
        w ~ N(0, std²) given |w| ≤ cut · std; outputs: std / √(2 · n_layers)
        std is the standard deviation before truncation.
    """

    formula: ClassVar[str] = r"""
        w \sim \mathcal{N}(0, \sigma^2) \text{ given } |w| \le c \sigma \qquad
        \sigma_{\text{out}} = \frac{\sigma}{\sqrt{2 n_{\text{layers}}}}
    """

    name: Literal["truncated-normal"] = "truncated-normal"
    std: float = Field(0.02, description="Standard deviation before truncation.", gt=0)
    cut: float = Field(3.0, description="Bound of the truncation, in standard deviations.", gt=0)
    scale_outputs: bool = Field(True, description="Divide projections that write to the residual stream by √(2 · n_layers).")

    def fill(self, role: Role, shape: Size, generator: Generator, context: BuildContext) -> Tensor:
        import torch

        std = self.std
        if role == "output" and self.scale_outputs:
            std /= math.sqrt(2 * context.n_layers)
        bound = self.cut * std
        w = torch.empty(shape, device=generator.device)
        return torch.nn.init.trunc_normal_(w, 0, std, -bound, bound, generator=generator)
