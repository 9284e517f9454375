"""Normal initialization scaled by the number of inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec

if TYPE_CHECKING:
    from torch import Generator, Size, Tensor

    from gptkit.nn.initial import Role

__all__ = ["ScaledSpec"]


class ScaledSpec(InitializerSpec):
    """Preserve the variance in the forward pass: weights are scaled by the number of inputs (LeCun).

    Formula:
        w ~ N(0, gain² / fan_in); outputs: divided by √(2 · n_layers)
        fan_in is the size of the last dimension. Tables of vectors: N(0, embedding_std²).

    Paper:
        https://arxiv.org/abs/1706.02515
    """

    formula: ClassVar[str] = r"""
        w \sim \mathcal{N}\left(0, \frac{g^2}{n_{\text{in}}}\right) \qquad
        w_{\text{out}} \leftarrow \frac{w_{\text{out}}}{\sqrt{2 n_{\text{layers}}}}
    """

    name: Literal["scaled"] = "scaled"
    gain: float = Field(1.0, description="Factor on the standard deviation; √2 is He's choice for ReLU.", gt=0)
    embedding_std: float = Field(0.02, description="Standard deviation of tables of vectors.", gt=0)
    scale_outputs: bool = Field(True, description="Divide projections that write to the residual stream by √(2 · n_layers).")

    def fill(self, role: Role, shape: Size, generator: Generator, context: BuildContext) -> Tensor:
        import torch

        std = self.embedding_std if role == "embedding" else self.gain / math.sqrt(shape[-1])
        if role == "output" and self.scale_outputs:
            std /= math.sqrt(2 * context.n_layers)
        return torch.empty(shape, device=generator.device).normal_(0, std, generator=generator)
