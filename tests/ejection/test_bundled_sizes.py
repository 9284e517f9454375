"""Attributes of copied modules that depend on their number of features."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.nn.linear import TransformedLinear
from gptkit.testing import run_checks
from tests.support.ejected import source_of


class ShrunkLinear(TransformedLinear):
    """A projection whose hook reads the sizes that torch's own class stores, and one of its own."""

    rows: int

    def transformed_weight(self) -> Tensor:
        small = torch.ones(self.out_features, self.in_features, dtype=self.weight.dtype, device=self.weight.device)
        return self.weight - 0.01 * small * self.rows**0.5


class ShrunkSpec(LinearSpec):
    """Subtract a small constant from the weight."""

    name: Literal["shrunk"] = "shrunk"

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        made = ShrunkLinear(d_in, d_out, bias=bias)
        made.rows = d_out
        return made


class ShiftedLinear(TransformedLinear):
    """A projection with a number that was computed from its sizes."""

    factor: float

    def transformed_weight(self) -> Tensor:
        return self.factor * self.weight


class ShiftedSpec(ShrunkSpec):
    """Divide the weight by the root of the number of inputs."""

    name: Literal["shifted"] = "shifted"  # type: ignore[assignment]

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        made = ShiftedLinear(d_in, d_out, bias=bias)
        made.factor = d_in**-0.5
        return made


class SizedNorm(nn.Module):
    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.dim, self.scale = dim, scale
        self.weight = nn.Parameter(torch.ones(dim))

    def initial(self) -> dict[str, Any]:
        return {"weight": "ones"}

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-6) * self.scale * self.dim**0.5 * self.weight


class SizedNormSpec(NormSpec):
    """Divide by the length, times the root of the number of features."""

    name: Literal["sized"] = "sized"

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return SizedNorm(dim, 1.0)


class ScaledNormSpec(SizedNormSpec):
    """Divide by the length, times a number that was computed from the number of features."""

    name: Literal["scaled"] = "scaled"  # type: ignore[assignment]

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return SizedNorm(dim, dim**0.25)


@pytest.mark.parametrize("spec", [ShrunkSpec(), SizedNormSpec()])
def test_size_in_an_attribute_is_that_of_each_use(spec: Any) -> None:
    (result,) = run_checks(spec, only=["written-equals-built"])
    assert (result.outcome, result.message) == ("passed", "")


def test_norm_of_heads_has_their_size() -> None:
    attention = {"name": "multi-head", "n_heads": 2, "qk_norm": SizedNormSpec()}
    source = source_of(
        GPT({"d_model": 16, "n_layers": 1, "context_length": 8, "norm": SizedNormSpec(), "attention": attention}, 7)
    )
    assert "self.dim = dim" in source
    assert "7919" not in source


@pytest.mark.parametrize(
    ("field", "spec", "name"), [("linear", ShiftedSpec(), "factor"), ("norm", ScaledNormSpec(), "scale")]
)
def test_number_that_was_computed_from_sizes_is_refused(field: str, spec: Any, name: str) -> None:
    with pytest.raises(NotWrittenError, match=rf"the attribute '{name}' of its module depends on the number of features"):
        source_of(GPT({"d_model": 16, "n_layers": 1, "context_length": 8, field: spec}, 7))
