"""`sinusoidal` absolute positions.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import PositionSpec
from gptkit.nn.position import Position

__all__ = ["SinusoidalPosition", "SinusoidalSpec"]


class SinusoidalSpec(PositionSpec):
    """Fixed sines and cosines of geometrically spaced wavelengths, added to the token embeddings.

    Formula:
        PE[t, 2i] = scale · sin(t / base^(2i / d_model)),  PE[t, 2i+1] = scale · cos(t / base^(2i / d_model))
    Shapes:
        (B, T, d_model) -> (B, T, d_model)
    Paper:
        https://arxiv.org/abs/1706.03762
    """

    name: Literal["sinusoidal"] = "sinusoidal"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})

    base: float = Field(10000.0, gt=1, description="Ratio of the longest to the shortest wavelength.")
    scale: float = Field(1.0, gt=0, description="Factor of the whole table; small ones suit small token embeddings.")

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if context.d_model % 2:
            yield Problem(
                (), f"sines and cosines come in pairs, but d_model {context.d_model} is odd; choose an even d_model"
            )

    def build_embedding(self, context: BuildContext) -> SinusoidalPosition:
        return SinusoidalPosition(self, context)

    def describe(self) -> str:
        return f"sinusoidal base {self.base:g}"


class SinusoidalPosition(Position):
    """Runtime of `sinusoidal`."""

    def __init__(self, spec: SinusoidalSpec, context: BuildContext) -> None:
        super().__init__()
        self.base, self.scale, self.d_model = spec.base, spec.scale, context.d_model

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        exponents = torch.arange(0, self.d_model, 2, device=x_BTE.device).float() / self.d_model
        angles = positions[..., None].float() * self.base**-exponents
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2) * self.scale
        return x_BTE + table.to(x_BTE.dtype)
