"""Sizes of components as expressions: exact fits, numbers of models, and the stored file."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from typing import Literal

import pytest
import torch
import transformers
from pydantic import Field
from torch import nn

from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry, default_registry
from gptkit.docs.digests import own_sources
from gptkit.docs.sizes import expressions
from gptkit.docs.sizes.expressions import QUANTITIES, Sizes, fitted, refreshed_data, sizes, stored_data
from gptkit.docs.sizes.measuring import KINDS, Meter
from gptkit.docs.sizes.polynomial import Point, Polynomial, fit
from gptkit.docs.sizes.section import section
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from tests.support.plugin_registry import registry_of

VALUES = {"a": [2, 4, 6, 8, 10], "b": [3, 6, 9, 12], "c": [5, 10, 15, 20]}
BASE = {"a": 2, "b": 3, "c": 5}


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda p: 7, "7"),
        (lambda p: 0, "0"),
        (lambda p: 2 * p["a"] * p["b"] + p["b"] + p["a"], "2·a·b + a + b"),
        (lambda p: p["a"] ** 2 * p["c"] - 3 * p["b"] + 1, "a²·c − 3·b + 1"),
        (lambda p: p["a"] * p["b"] * p["c"] // 2, "1/2·a·b·c"),
    ],
)
def test_polynomials_are_fitted_exactly(function: object, text: str) -> None:
    result = fit(function, BASE, VALUES)  # type: ignore[arg-type]
    assert result is not None
    assert result.text() == text
    for values in itertools.product((3, 17), repeat=3):
        point = dict(zip(BASE, (2 * value for value in values), strict=True))
        assert result(point) == function(point)  # type: ignore[operator]


@pytest.mark.parametrize(
    "function",
    [lambda p: math.isqrt(1000 * p["a"]), lambda p: -(-p["a"] // 4) * p["b"], lambda p: 2 ** p["a"]],
    ids=["root", "rounded", "exponential"],
)
def test_other_functions_have_no_fit(function: object) -> None:
    result = fit(function, BASE, VALUES)  # type: ignore[arg-type]
    assert result is None or any(result({**BASE, "a": a}) != function({**BASE, "a": a}) for a in (14, 18, 22))  # type: ignore[operator]


def test_sizes_that_are_not_valid_together_are_skipped() -> None:
    def measure(point: Point) -> int | None:
        return None if point["b"] % point["a"] else point["a"] * point["b"]

    result = fit(measure, {"a": 1, "b": 12}, {"a": [1, 2, 3, 4, 6], "b": [12, 24, 36, 48]})
    assert result is not None
    assert result.text() == "a·b"


def test_symbols_of_a_polynomial() -> None:
    result = Polynomial(((Fraction(2), (("d_model", 1), ("T", 2))), (Fraction(-1), ())))
    assert result.symbols == ["d_model", "T"]
    assert result({"d_model": 3, "T": 2}) == 23


def of(kind: str, name: str, registry: Registry) -> Sizes:
    result = sizes(registry.component(kind, name), registry)
    assert result is not None
    return result


def texts(result: Sizes) -> dict[str, str]:
    return {name: "" if each is None else each.polynomial.text() for name, each in result.expressions.items()}


def test_expressions_of_known_components(builtin: Registry) -> None:
    assert texts(of("feedforward", "mlp", builtin))["parameters"] == "2·d_model·d_hidden + d_model + d_hidden"
    heads = texts(of("attention", "multi-head", builtin))
    assert heads["parameters"] == "4·d_model·n_heads·d_head"
    assert heads["cache"] == "4·n_heads·d_head·T"
    assert texts(of("norm", "rms", builtin))["parameters"] == "d_model"
    assert texts(of("embedding", "token", builtin))["parameters"] == "d_model·vocab_size"


def test_numbers_are_those_of_gpt2(builtin: Registry) -> None:
    """The attention and the feed-forward of GPT-2 as transformers builds them, without the biases of the attention."""
    config = transformers.GPT2Config(n_layer=1)
    with torch.device("meta"):
        block = transformers.GPT2Model(config).h[0]
    numbers = of("feedforward", "mlp", builtin).numbers
    assert numbers is not None
    assert numbers["parameters"] == sum(parameter.numel() for parameter in block.mlp.parameters())
    weights = [parameter for parameter in block.attn.parameters() if parameter.dim() > 1]
    numbers = of("attention", "multi-head", builtin).numbers
    assert numbers is not None
    assert numbers["parameters"] == sum(weight.numel() for weight in weights)
    assert numbers["cache"] == 2 * 1024 * config.n_embd * torch.bfloat16.itemsize


class StepSpec(FeedForwardSpec):
    """Feed-forward whose width is rounded."""

    name: Literal["step"] = "step"
    width: int = Field(5, ge=1, description="Width before it is rounded up to a multiple of 7.")

    def build(self, context: BuildContext) -> FeedForward:
        return _Step(context.d_model, -(-self.width // 7) * 7)


class _Step(FeedForward):
    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d_model, width), nn.Linear(width, d_model)

    def forward(self, x_BTE: torch.Tensor, forward: Forward) -> torch.Tensor:
        return self.down(self.up(x_BTE))  # type: ignore[no-any-return]


class Plugin:
    """The plugin of this feed-forward."""

    __name__ = "step.plugin"

    @hookimpl
    def gptkit_components(self) -> list[type[FeedForwardSpec]]:
        return [StepSpec]


def test_numbers_are_stated_where_no_expression_fits() -> None:
    registry = registry_of(step=Plugin)
    assert fitted(StepSpec, registry).expressions["parameters"] is None
    parameters = 2 * 768 * 7 + 768 + 7
    assert f"| parameters | measured only | {parameters:,} |" in section(StepSpec, registry)


def test_component_that_cannot_be_built_has_no_sizes(builtin: Registry) -> None:
    assert section(StepSpec, builtin) == "", "it is not registered"


def test_a_stored_expression_that_is_wrong_is_replaced(builtin: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"terms": [["3", {"d_model": 1, "d_hidden": 1}]]}
    data = {"feedforward mlp": {"parameters": wrong, "flops": None, "cache": None}}
    monkeypatch.setattr(expressions, "_stored", lambda: data)
    assert texts(of("feedforward", "mlp", builtin))["parameters"] == "2·d_model·d_hidden + d_model + d_hidden"


@pytest.mark.parametrize("step", [pytest.param(9, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.nightly)])
def test_stored_expressions_are_those_that_are_measured(step: int) -> None:
    stored = json.loads(expressions.STORED.read_text(encoding="utf-8"))
    names = list(stored)[::step]
    measured = stored_data(default_registry(), names)
    assert list(measured) == names
    for name, each in measured.items():
        del each["sources"], stored[name]["sources"]  # with others, the expressions are compared when pages are made
        assert each == stored[name], f"{name}: run python -m gptkit.docs.remeasure sizes"


def test_sizes_are_measured_where_sources_have_changed(builtin: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[object] = []
    monkeypatch.setattr(Meter, "measure", lambda self, point: measured.append(point))
    before = of("feedforward", "mlp", builtin)
    assert not measured
    assert before.numbers is not None
    monkeypatch.undo()
    monkeypatch.setattr(expressions, "own_sources", lambda cls, registry: "others")
    assert of("feedforward", "mlp", builtin) == before


def test_most_stored_sizes_are_current() -> None:
    """The pages are made fast only if few components must be measured for them."""
    registry = registry_of()
    stored = json.loads(expressions.STORED.read_text(encoding="utf-8"))
    classes = {name: registry.component(*name.split(" ", 1)) for name in stored}
    stale = [name for name, cls in classes.items() if stored[name]["sources"] != own_sources(cls, registry)]
    assert len(stale) < 0.1 * len(stored), f"{stale}: run python -m gptkit.docs.remeasure sizes"


def test_only_components_with_other_sources_are_measured_again(builtin: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = builtin
    stored = json.loads(expressions.STORED.read_text(encoding="utf-8"))
    for name, each in stored.items():
        each["sources"] = own_sources(registry.component(*name.split(" ", 1)), registry)
    changed = stored["norm rms"] | {"sources": "others"}
    changed["example"] = changed["example"] | {"numbers": None}
    measured: list[str] = []
    measure = Meter.measure

    def counted(self: Meter, point: Point) -> object:
        measured.append(self._kind)
        return measure(self, point)

    monkeypatch.setattr(Meter, "measure", counted)
    monkeypatch.setattr(expressions, "_stored", lambda: {**stored, "norm rms": changed})
    assert refreshed_data(registry) == stored
    assert set(measured) == {"norm"}


def test_every_measured_component_is_stored() -> None:
    registry = default_registry()
    stored = json.loads(expressions.STORED.read_text(encoding="utf-8"))
    names = {f"{kind} {name}" for kind in KINDS for name, entry in registry.entries(kind).items() if entry.plugin.built_in}
    assert stored.keys() == names
    described = [name for name, each in stored.items() if each["parameters"] is not None]
    assert len(described) > 0.9 * len(names)
    assert all(set(each) - {"fixed", "derived"} == {*QUANTITIES, "example", "sources"} for each in stored.values())
