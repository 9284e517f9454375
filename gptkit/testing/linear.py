"""Checks of linear projections.

Shapes: B batch, T tokens, I features in, O features out.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gptkit.testing.check import Checks, expect, same
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

B, T, I, O = 2, 5, 24, 16  # noqa: E741


def _inputs() -> Tensor:
    return torch.randn(B, T, I, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@checks.add("projects", "Components count on an nn.Linear: its parameters' names and shapes, and its output's shape.")
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


@checks.add("vector-by-vector", "A projection that depends on other tokens lets a token see later ones, and other texts.")
@torch.no_grad()
def vector_by_vector(subject: Subject) -> None:
    linear, x_BTI = subject.module(d_in=I, d_out=O, bias=True), _inputs()
    whole = linear(x_BTI)
    for row in range(B):
        for at in range(T):
            alone = linear(x_BTI[row, at])
            same(whole[row, at], alone, f"the vector of token {at} in row {row} gives another result than by itself")
