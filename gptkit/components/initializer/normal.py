"""Normal initialization with one standard deviation, as in GPT-2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec

if TYPE_CHECKING:
    from torch import Generator, Size, Tensor

    from gptkit.nn.initial import Role

__all__ = ["NormalSpec"]


class NormalSpec(InitializerSpec):
    """Normal distribution with one standard deviation, smaller for projections that write to the residual stream.

    Formula:
        w ~ N(0, std²); outputs: N(0, std² / (2 · n_layers))

    Paper:
        https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    """

    formula: ClassVar[str] = r"""
        w \sim \mathcal{N}(0, \sigma^2) \qquad
        w_{\text{out}} \sim \mathcal{N}\left(0, \frac{\sigma^2}{2 n_{\text{layers}}}\right)
    """

    name: Literal["normal"] = "normal"
    std: float = Field(0.02, description="Standard deviation.", gt=0)
    scale_outputs: bool = Field(True, description="Divide projections that write to the residual stream by √(2 · n_layers).")

    def fill(self, role: Role, shape: Size, generator: Generator, context: BuildContext) -> Tensor:
        import torch

        std = self.std
        if role == "output" and self.scale_outputs:
            std /= math.sqrt(2 * context.n_layers)
        return torch.empty(shape, device=generator.device).normal_(0, std, generator=generator)
