"""Linear projection `dense`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from gptkit.kinds.context import BuildContext
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DenseSpec"]


class DenseSpec(LinearSpec):
    """Linear projection with a dense matrix in full precision and an optional bias.

    Formula:
        y = W · x + b

    Shapes:
        (…, d_in) → (…, d_out); W: (d_out, d_in), b: (d_out,)
    """

    formula: ClassVar[str] = r"y = W x + b"

    name: Literal["dense"] = "dense"
    stacks: ClassVar[bool] = True

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        from torch import nn

        return nn.Linear(d_in, d_out, bias=bias)

    def written(self, context: WritingContext) -> Written:
        return Written(calls={"construct": "nn.Linear($d_in, $d_out$bias)"})
