"""`sinusoidal` absolute positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
        PE[t, 2i] = scale · sin(a),  PE[t, 2i+1] = scale · cos(a)  with  a = (t + offset) / base^(2i / d_model)
        With `layout: half`, the sines are the first d_model / 2 features, and the cosines the others
        With `endpoint`, the exponents are 2i / (d_model − 2)
    Shapes:
        (B, T, d_model) -> (B, T, d_model)
    Paper:
        https://arxiv.org/abs/1706.03762
    Notes:
        CTRL has `layout: half`; XGLM, like tensor2tensor and fairseq, has `layout: half` and `endpoint: true`, and starts at
        `offset: 2`. The order of the features matters for trained weights only.
    """

    formula: ClassVar[str] = r"""
        P_{t,2i} = \sin\left((t + o) / b^{2i/d}\right) \qquad P_{t,2i+1} = \cos\left((t + o) / b^{2i/d}\right)
    """

    name: Literal["sinusoidal"] = "sinusoidal"
    uses: ClassVar[frozenset[str]] = frozenset({"embed"})

    base: float = Field(10000.0, gt=1, description="Ratio of the longest to the shortest wavelength.")
    scale: float = Field(1.0, gt=0, description="Factor of the table; use a small one for small token embeddings.")
    layout: Literal["interleaved", "half"] = Field(
        "interleaved", description="Sine and cosine of a wavelength side by side, or all sines before all cosines."
    )
    offset: int = Field(0, ge=0, description="Position of the first token (XGLM: 2).")
    endpoint: bool = Field(
        False, description="Whether `base` itself is the ratio of two wavelengths in the table, or the end of an open range."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"layout": "half", "offset": 2, "endpoint": True})

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if context.d_model % 2:
            yield Problem(
                (), f"sines and cosines come in pairs, but d_model {context.d_model} is odd; choose an even d_model"
            )
        elif self.endpoint and context.d_model < 4:
            yield Problem(("endpoint",), "it needs two wavelengths, hence d_model 4 or more; remove endpoint")

    def build_embedding(self, context: BuildContext) -> SinusoidalPosition:
        from gptkit.components.position.modules.sinusoidal import SinusoidalPosition

        return SinusoidalPosition(self, context)

    def written(self, context: WritingContext, *, heads: HeadShape | None) -> Written:
        from gptkit.components.position.written.absolute import sinusoidal

        return sinusoidal(self)
