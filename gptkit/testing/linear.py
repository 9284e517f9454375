"""Checks of linear projections, and of the components that contain some.

Shapes: B batch, T tokens, I features in, O features out.
"""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.linear import LinearSpec
from gptkit.testing.check import Checks, expect, same, skip
from gptkit.testing.subject import Subject

__all__ = ["checks", "user_checks"]

checks = Checks()
user_checks = Checks()

B, T, I, O = 2, 5, 24, 16  # noqa: E741


def _inputs() -> Tensor:
    return torch.randn(B, T, I, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@checks.add("projects", "Components require an nn.Linear: its parameters' names and shapes, and its output's shape.")
@torch.no_grad()
def projects(subject: Subject) -> None:
    for bias in (True, False):
        module = subject.module(d_in=I, d_out=O, bias=bias)
        expect(isinstance(module, nn.Linear), f"build returned a {type(module).__name__}, which is not an nn.Linear")
        linear = cast("nn.Linear", module)
        expect(linear.weight.shape == (O, I), f"the weight has shape {tuple(linear.weight.shape)}, not ({O}, {I})")
        expect((linear.bias is not None) == bias, f"with bias={bias} its bias is {linear.bias}")
        y_BTO = linear(_inputs())
        expect(y_BTO.shape == (B, T, O), f"({B}, {T}, {I}) became {tuple(y_BTO.shape)}, not ({B}, {T}, {O})")
        expect(y_BTO.dtype == torch.float64, f"fp64 became {y_BTO.dtype}; return the input's dtype")


@checks.add("vector-by-vector", "A projection that depends on other tokens violates causality and mixes texts.")
@torch.no_grad()
def vector_by_vector(subject: Subject) -> None:
    linear, x_BTI = subject.module(d_in=I, d_out=O, bias=True), _inputs()
    whole = linear(x_BTI)
    for row in range(B):
        for at in range(T):
            alone = linear(x_BTI[row, at])
            same(whole[row, at], alone, f"the vector of token {at} in row {row} gives another result than by itself")


class _Marked(nn.Linear):
    """A projection that `context.linear` returned."""


class _MarkedSpec(LinearSpec):
    """Dense projection whose modules differ from other projections."""

    name: Literal["marked"] = "marked"
    stacks: ClassVar[bool] = False

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        return _Marked(d_in, d_out, bias=bias)


@user_checks.add(
    "uses-model-linear", "Ternary weights, say, are chosen by `model.linear`, which must reach all projections."
)
def uses_model_linear(subject: Subject) -> None:
    block = subject.make("none" if subject.kind == "attention" else None, linear=_MarkedSpec()).blocks[0]
    component = getattr(block, subject.kind, None)
    parts = component.modules() if isinstance(component, nn.Module) else ()
    modules = [module for module in parts if isinstance(module, nn.Linear)]
    if not modules:
        skip("it has no linear projections")
    marked = [module for module in modules if isinstance(module, _Marked)]
    expect(marked, "all of its projections are plain nn.Linear modules; make them with context.linear(d_in, d_out, bias=…)")
