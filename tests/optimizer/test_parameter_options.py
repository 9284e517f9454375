"""Options of parameters that modules declare for optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gptkit.components.optimizer.adamw import AdamWSpec
from gptkit.components.optimizer.muon import MuonSpec
from gptkit.components.optimizer.sgd import SGDSpec
from gptkit.model.gpt import GPT
from gptkit.nn.parameters import ParameterOptions, Resolved, parameter_options


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 6)
        self.gain = nn.Parameter(torch.ones(4))

    def parameter_options(self) -> dict[str, ParameterOptions]:
        return {
            "up.weight": ParameterOptions(decay=False, hidden=False, rate=0.5),
            "gain": ParameterOptions(decay=True),
        }


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.down = nn.Linear(6, 4, bias=False)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def parameter_options(self) -> dict[str, ParameterOptions]:
        return {"inner.up.weight": ParameterOptions(decay=True)}


def test_outer_declarations_override_inner_ones_option_by_option() -> None:
    assert parameter_options(Outer()) == {
        "inner.gain": Resolved(decay=True, hidden=False, rate=1.0),
        "inner.up.weight": Resolved(decay=True, hidden=False, rate=0.5),
        "inner.up.bias": Resolved(decay=False, hidden=False, rate=1.0),
        "down.weight": Resolved(decay=True, hidden=True, rate=1.0),
    }


def test_name_that_is_not_a_parameter_is_an_error() -> None:
    class Wrong(Inner):
        def parameter_options(self) -> dict[str, ParameterOptions]:
            return {"down.weight": ParameterOptions()}

    with pytest.raises(ValueError, match="which is not its parameter"):
        parameter_options(Wrong())


def groups(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("cls", [AdamWSpec, SGDSpec, MuonSpec])
def test_optimizers_use_the_declared_options(cls: Any) -> None:
    model = Outer()
    assert groups(cls(learning_rate=0.25, weight_decay=0.5).build(model), model) == {
        "inner.gain": (0.25, 0.5),
        "inner.up.weight": (0.125, 0.5),
        "inner.up.bias": (0.25, 0.0),
        "down.weight": (0.25, 0.5),
    }


def test_muon_uses_adamw_for_other_parameters() -> None:
    model = Outer()
    optimizer = MuonSpec(learning_rate=0.25).build(model)
    muon = [id(p) for group in optimizer._parts[0].param_groups for p in group["params"]]  # type: ignore[attr-defined]
    assert muon == [id(model.down.weight)]


def test_by_default_matrices_decay_and_norms_and_biases_do_not() -> None:
    spec = {"d_model": 16, "n_layers": 1, "context_length": 8, "attention": {"n_heads": 2}, "position": "learned"}
    model = GPT({**spec, "norm": "layer", "head": {"name": "linear", "tied": True}}, 32)
    options = parameter_options(model)
    assert set(options) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert options[name].decay == (parameter.ndim >= 2)
        assert options[name].hidden == (parameter.ndim >= 2 and name.startswith("blocks."))
        assert options[name].rate == 1.0
    optimizer = AdamWSpec().build(model)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    order = [id(p) for p in model.parameters() if p.ndim >= 2] + [id(p) for p in model.parameters() if p.ndim < 2]
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == order
