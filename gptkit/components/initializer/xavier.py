"""Normal initialization scaled by the numbers of inputs and outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec

if TYPE_CHECKING:
    from torch import Generator, Size, Tensor

    from gptkit.nn.initial import Role

__all__ = ["XavierSpec"]


class XavierSpec(InitializerSpec):
    """Balance the variances of activations in the forward pass and of gradients in the backward pass (Glorot).

    Formula:
        w ~ N(0, gain² · 2 / (fan_in + fan_out)); outputs: divided by √(2 · n_layers)
        fan_in and fan_out are the sizes of the last and the last but one dimension. Packed projections (queries with
        keys and values, gates) count as one matrix. Tables of vectors: N(0, embedding_std²).

    Paper:
        https://proceedings.mlr.press/v9/glorot10a.html
    """

    formula: ClassVar[str] = r"""
        w \sim \mathcal{N}\left(0, \frac{2 g^2}{n_{\text{in}} + n_{\text{out}}}\right) \qquad
        w_{\text{out}} \leftarrow \frac{w_{\text{out}}}{\sqrt{2 n_{\text{layers}}}}
    """

    name: Literal["xavier"] = "xavier"
    gain: float = Field(1.0, description="Factor on the standard deviation.", gt=0)
    embedding_std: float = Field(0.02, description="Standard deviation of tables of vectors.", gt=0)
    scale_outputs: bool = Field(True, description="Divide projections that write to the residual stream by √(2 · n_layers).")

    def fill(self, role: Role, shape: Size, generator: Generator, context: BuildContext) -> Tensor:
        import torch

        std = self.embedding_std
        if role != "embedding":
            std = self.gain * math.sqrt(2 / sum(shape[-2:]))
        if role == "output" and self.scale_outputs:
            std /= math.sqrt(2 * context.n_layers)
        return torch.empty(shape, device=generator.device).normal_(0, std, generator=generator)
