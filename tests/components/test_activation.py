"""Activations against transformers' table, torch's functions, and their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gptkit.components.activation.elementwise import LeakyReluSpec, QuickGeluSpec
from gptkit.components.activation.xielu import XieluSpec
from gptkit.core.registry import default_registry
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.initial import declared

CONTEXT = BuildContext(d_model=8, context_length=8, n_layers=1)
X = torch.linspace(-6, 6, 241)


def built(name: str) -> torch.nn.Module:
    spec = default_registry().component("activation", name).model_validate({})
    assert isinstance(spec, ActivationSpec)
    module = spec.build(CONTEXT)
    with torch.no_grad():
        for parameter, initial in declared(module).items():
            target = module.get_parameter(parameter)
            assert callable(initial.initial)
            target.copy_(initial.initial(target.shape, torch.Generator()))
    return module


FORMULAS = {
    "identity": lambda x: x,
    "relu": lambda x: max(0.0, x),
    "leaky-relu": lambda x: x if x > 0 else 0.01 * x,
    "relu-squared": lambda x: max(0.0, x) ** 2,
    "gelu": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    "gelu-tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick-gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "capped-silu": lambda x: 4 * math.tanh(x / 4) / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "softplus": lambda x: math.log1p(math.exp(x)),
    "xielu": lambda x: 0.5 * x + 0.8 * (x * x if x > 0 else math.expm1(min(x, -1e-6)) - x),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activation_equals_its_formula(name: str) -> None:
    expected = torch.tensor([FORMULAS[name](x) for x in X.tolist()])
    torch.testing.assert_close(built(name)(X), expected, rtol=1e-5, atol=1e-5)


def test_every_built_in_activation_has_a_formula_here() -> None:
    entries = default_registry().entries("activation")
    assert {name for name, entry in entries.items() if entry.plugin.built_in} == set(FORMULAS)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("relu", "relu"),
        ("relu-squared", "relu2"),
        ("gelu", "gelu"),
        ("gelu-tanh", "gelu_pytorch_tanh"),
        ("gelu-tanh", "gelu_new"),
        ("quick-gelu", "quick_gelu"),
        ("silu", "silu"),
        ("sigmoid", "sigmoid"),
        ("tanh", "tanh"),
        ("identity", "linear"),
        ("xielu", "xielu"),
    ],
)
def test_equals_transformers(name: str, reference: str) -> None:
    activations = pytest.importorskip("transformers.activations")
    external = activations.ACT2FN[reference].float()  # xIELU has its slopes in bf16
    tolerance = 3e-2 if name == "xielu" else 1e-6
    torch.testing.assert_close(built(name)(X), external(X), rtol=0, atol=tolerance)


def test_slopes_of_xielu_are_learned_and_its_constants_are_not() -> None:
    module = built("xielu")
    module(X).sum().backward()
    learned = {name for name, parameter in module.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert learned == {"positive", "negative"}
    with pytest.raises(ValueError, match=r"negative is 0\.2, and beta is 0\.5"):
        XieluSpec(negative=0.2)


def test_parameters_change_the_result() -> None:
    torch.testing.assert_close(LeakyReluSpec(slope=0.3).build(CONTEXT)(X), F.leaky_relu(X, 0.3))
    torch.testing.assert_close(QuickGeluSpec(alpha=1.0).build(CONTEXT)(X), F.silu(X), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_shape_and_dtype_are_kept(name: str) -> None:
    x = X.bfloat16().view(1, 241, 1)
    y = built(name)(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
