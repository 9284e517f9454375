"""Linear projections with one error each."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from gptkit.components.feedforward.mlp import MLPSpec
from gptkit.components.feedforward.modules.mlp import MLP
from gptkit.components.linear.dense import DenseSpec
from gptkit.kinds.context import BuildContext
from tests.mutants.mutant import ANYTHING, Mutant, become


class AlwaysABias(Mutant, DenseSpec):
    """Add a bias with bias=False."""

    name: Literal["always-a-bias"] = "always-a-bias"
    caught_by = "projects"

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        return nn.Linear(d_in, d_out)


class ScalesByTheBatch(Mutant, DenseSpec):
    """Divide by the largest feature of all tokens."""

    class Runtime(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x / x.abs().amax())

    name: Literal["scales-by-the-batch"] = "scales-by-the-batch"
    caught_by = "vector-by-vector"

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        made: nn.Linear = become(super().build(context, d_in=d_in, d_out=d_out, bias=bias), self.Runtime)
        return made


class DividesInPlace(Mutant, DenseSpec):
    """Halve the input in place, and double the result."""

    class Runtime(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x / 2 if x.requires_grad else x.div_(2))

    name: Literal["divides-in-place"] = "divides-in-place"
    caught_by = "leaves-input-alone"
    also = ANYTHING

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        made: nn.Linear = become(super().build(context, d_in=d_in, d_out=d_out, bias=bias), self.Runtime)
        return made


class PlainProjections(Mutant, MLPSpec):
    """A feed-forward that ignores the model's linear projections."""

    name: Literal["plain-projections"] = "plain-projections"
    caught_by = "uses-model-linear"

    def build(self, context: BuildContext) -> MLP:
        made: MLP = super().build(context)  # type: ignore[assignment]
        for name in ("up", "down"):
            linear: nn.Linear = getattr(made, name)
            setattr(made, name, nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None))
        return made
