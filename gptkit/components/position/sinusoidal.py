"""`sinusoidal` absolute positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.position.modules.sinusoidal import SinusoidalPosition

__all__ = ["SinusoidalSpec"]


class SinusoidalSpec(PositionSpec):
    """Fixed sines and cosines of geometrically spaced wavelengths, added to the token embeddings.

    Formula:
        PE[t, 2i] = scale · sin(t / base^(2i / d_model)),  PE[t, 2i+1] = scale · cos(t / base^(2i / d_model))
    Shapes:
        (B, T, d_model) -> (B, T, d_model)
    Paper:
        https://arxiv.org/abs/1706.03762
    """

    formula: ClassVar[str] = r"""
        P_{t,2i} = \sin\left(t / b^{2i/d}\right) \qquad P_{t,2i+1} = \cos\left(t / b^{2i/d}\right)
    """

    name: Literal["sinusoidal"] = "sinusoidal"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})

    base: float = Field(10000.0, gt=1, description="Ratio of the longest to the shortest wavelength.")
    scale: float = Field(1.0, gt=0, description="Factor of the table; use a small one for small token embeddings.")

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if context.d_model % 2:
            yield Problem(
                (), f"sines and cosines come in pairs, but d_model {context.d_model} is odd; choose an even d_model"
            )

    def build_embedding(self, context: BuildContext) -> SinusoidalPosition:
        from gptkit.components.position.modules.sinusoidal import SinusoidalPosition

        return SinusoidalPosition(self, context)

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written:
        from gptkit.components.position.written.absolute import sinusoidal

        return sinusoidal(self)
