"""Components without a template are copied from their own modules."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.linear import TransformedLinear
from gptkit.testing import run_checks
from tests.support.ejected import source_of
from tests.support.small_plugins import SMALL, small_registry

WHOLE: dict[str, Any] = {"n_layers": 2, "d_model": 16, "context_length": 16}


def halved(x: Tensor, times: int) -> Tensor:
    return x / 2**times


class LengthNorm(nn.Module):
    def __init__(self, dim: int, power: int, shift: bool) -> None:
        super().__init__()
        self.power = power
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if shift else None

    def initial(self) -> dict[str, Any]:
        return {"weight": "ones"} if self.bias is None else {"weight": "ones", "bias": "zeros"}

    def forward(self, x: Tensor) -> Tensor:
        y = halved(self.weight * x / (1 + self.length(x)), self.power)
        return y if self.bias is None else y + self.bias

    def length(self, x: Tensor) -> Tensor:
        return x.norm(dim=-1, keepdim=True)


class LengthNormSpec(NormSpec):
    """Divide by the length."""

    name: Literal["length"] = "length"
    power: int = Field(1, ge=0, description="Halvings.")
    shift: bool = Field(False, description="Add a bias.")

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return LengthNorm(dim, self.power, self.shift)


class SignedLinear(TransformedLinear):
    factor: float

    def transformed_weight(self) -> Tensor:
        return self.factor * self.weight.sign()


class SignedSpec(LinearSpec):
    """Signs of the weights."""

    name: Literal["signed"] = "signed"
    factor: float = Field(0.1, description="Size of the weights.")

    def build(self, context: BuildContext, *, d_in: int, d_out: int, bias: bool) -> nn.Linear:
        made = SignedLinear(d_in, d_out, bias=bias)
        made.factor = self.factor
        return made


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) * torch.sin(x)


class SineSpec(ActivationSpec):
    """Sine."""

    name: Literal["sine"] = "sine"

    def build(self, context: BuildContext) -> nn.Module:
        return Sine()


@dataclass
class Table:
    size: int


class OddFeedForward(FeedForward):
    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        return x_BTE * Table(2).size


class OddFeedForwardSpec(FeedForwardSpec):
    """A feed-forward whose module uses a class."""

    name: Literal["odd"] = "odd"

    def build(self, context: BuildContext) -> Any:
        return OddFeedForward()


@pytest.mark.slow
@pytest.mark.parametrize("cls", SMALL)
def test_small_component_of_each_kind_equals_the_built_one(cls: Any) -> None:
    checks = ["written-equals-built", "written-options-equal-built"]
    for result in run_checks(cls(), slow=True, only=checks, registry=small_registry()):
        assert result.outcome in ("passed", "skipped"), result.message
        assert result.check.name != "written-equals-built" or result.outcome == "passed", result.message


@pytest.mark.parametrize("spec", [LengthNormSpec(), LengthNormSpec(power=2, shift=True), SignedSpec(), SineSpec()])
def test_copied_component_equals_the_built_one(spec: Any) -> None:
    checks = ["written-equals-built", "written-options-equal-built"]
    outcomes = {result.check.name: (result.outcome, result.message) for result in run_checks(spec, slow=True, only=checks)}
    assert outcomes["written-equals-built"] == ("passed", "")
    assert outcomes["written-options-equal-built"][0] in (("passed",) if len(type(spec).model_fields) > 1 else ("skipped",))


class Steep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))
        self.knee = nn.Parameter(torch.full((1,), 0.25))

    def initial(self) -> dict[str, Any]:
        return {name: lambda shape, _, value=value: torch.full(shape, value) for name, value in INITIAL.items()}

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * (x - self.knee).relu()


INITIAL = {"slope": 1.0, "knee": 0.25}


class SteepSpec(ActivationSpec):
    """An activation with parameters."""

    name: Literal["steep"] = "steep"

    def build(self, context: BuildContext) -> nn.Module:
        return Steep()


def test_copy_begins_with_the_constants_that_its_module_declares() -> None:
    experts = {"name": "experts", "n_experts": 2, "expert": {"name": "mlp", "activation": SteepSpec()}}
    module = ModuleType("written")
    source = source_of(GPT({"d_model": 8, "n_layers": 1, "context_length": 8, "feedforward": experts}, 7))
    exec(compile(source, "<written>", "exec"), vars(module))
    weights = module.GPT().state_dict()
    for expert in range(2):
        for name, value in INITIAL.items():
            assert weights[f"blocks.0.feedforward.experts.each.{expert}.activation.{name}"].tolist() in (value, [value])


def test_copy_has_the_methods_and_functions_that_it_uses() -> None:
    norm = {
        "norm": LengthNormSpec(power=3),
        "attention": {"name": "multi-head", "n_heads": 2, "qk_norm": LengthNormSpec(power=3)},
    }
    source = source_of(GPT({**WHOLE, **norm}, 11))
    assert "\ndef halved(x: Tensor, times: int) -> Tensor:\n" in source
    assert "    def length(self, x: Tensor) -> Tensor:\n" in source
    assert "        self.power = 3\n" in source
    assert "self.attention_norm = LengthNorm(dim=D_MODEL)" in source


def test_refusal_gives_the_reason() -> None:
    model = GPT({**WHOLE, "norm": "rms"}, 11)
    spec = model.spec.model_copy(update={"feedforward": OddFeedForwardSpec()})
    from gptkit.ejection.writing import write_source

    with pytest.raises(
        NotWrittenError,
        match=r"OddFeedForwardSpec does not define `written`, and OddFeedForward\.forward uses 'Table', which the file",
    ):
        write_source(spec, 11, name="odd", parameters=0)
