"""Normal initialization scaled by the model's width."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec

if TYPE_CHECKING:
    from torch import Generator, Size, Tensor

    from gptkit.nn.initial import Role

__all__ = ["SmallSpec"]


class SmallSpec(InitializerSpec):
    """Normal distribution with a standard deviation that depends on the model's width, as in GPT-NeoX.

    Formula:
        w ~ N(0, 2 / (5 · d_model)); outputs: N(0, (2 / n_layers)² / d_model)
        Without `scale_outputs`, outputs are initialized like other projections.

    Paper:
        https://arxiv.org/abs/2204.06745

    Notes:
        The standard deviation is that of "Transformers without Tears" (arXiv 1910.05895), for outputs that of Wang (GPT-J).
    """

    formula: ClassVar[str] = r"""
        w \sim \mathcal{N}\left(0, \frac{2}{5 d}\right) \qquad
        w_{\text{out}} \sim \mathcal{N}\left(0, \frac{4}{n_{\text{layers}}^2 d}\right)
    """

    name: Literal["small"] = "small"
    scale_outputs: bool = Field(
        True, description="Initialize projections that write to the residual stream with 2 / (n_layers · √d_model)."
    )

    def fill(self, role: Role, shape: Size, generator: Generator, context: BuildContext) -> Tensor:
        import torch

        std = math.sqrt(2 / (5 * context.d_model))
        if role == "output" and self.scale_outputs:
            std = 2 / (context.n_layers * math.sqrt(context.d_model))
        return torch.empty(shape, device=generator.device).normal_(0, std, generator=generator)
