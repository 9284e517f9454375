"""Exceptions of a component while a spec is checked name it, its distribution and its location."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from gptkit.core.errors import Problem
from gptkit.core.registry import Registry
from gptkit.core.registry.plugin import installed
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.position import PositionSpec
from gptkit.model.spec import ModelSpec
from tests.support.fake_plugins import plugin


class Broken(PositionSpec):
    """Position that raises in a given method."""

    name: Literal["broken"] = "broken"
    uses: ClassVar[frozenset[str]] = frozenset({"rotate"})
    fails: str = Field("", description="In which method.")

    def resolved(self, context: Any) -> Any:
        if self.fails == "resolved":
            raise KeyError("base")
        return None if self.fails == "nothing" else self

    def problems(self, context: Any) -> Iterator[Problem]:
        yield from ()
        if self.fails == "problems":
            raise ValueError("no problems")
        if self.fails == "message":
            yield "the message alone"  # type: ignore[misc]
        if self.fails == "attribute":
            self.nothing  # type: ignore[attr-defined]  # noqa: B018

    def head_problems(self, heads: Any) -> Iterator[str]:
        if self.fails == "head_problems":
            raise ZeroDivisionError("no heads")
        yield from ()

    def max_positions(self, context: Any) -> int | None:
        return int(self.fails) if self.fails == "max_positions" else None


class Misdeclared(PositionSpec):
    """Position that declares methods as properties."""

    name: Literal["misdeclared"] = "misdeclared"

    @property
    def max_positions(self) -> int:  # type: ignore[override]
        return 1024

    def head_problems(self) -> Iterator[str]:  # type: ignore[override]
        yield from ()


class Inside(ActivationSpec):
    """Activation that raises inside a feed-forward."""

    name: Literal["inside"] = "inside"

    def resolved(self, context: Any) -> Any:
        raise RuntimeError("inside")

    def build(self, context: Any) -> Any:
        raise NotImplementedError


REGISTRY = Registry([plugin("gptkit-broken", [Broken, Misdeclared, Inside], version="0.1"), *installed()])


def errors(**parts: Any) -> dict[str, str]:
    sizes = {"d_model": 8, "n_layers": 1, "context_length": 8, "attention": {"name": "multi-head", "n_heads": 2}}
    with pytest.raises(ValidationError) as caught:
        ModelSpec.model_validate({**sizes, **parts}, context={"registry": REGISTRY})
    return {".".join(map(str, detail["loc"])): detail["msg"] for detail in caught.value.errors()}


@pytest.mark.parametrize(
    ("method", "where", "expected"),
    [
        ("resolved", "position", "KeyError: 'base'"),
        ("problems", "position", "ValueError: no problems"),
        ("head_problems", "attention", "ZeroDivisionError: no heads"),
        ("max_positions", "position", "ValueError: invalid literal for int() with base 10: 'max_positions'"),
    ],
)
def test_failing_component_is_named_with_its_distribution(method: str, where: str, expected: str) -> None:
    result = errors(position={"name": "broken", "fails": method})
    message = result.pop(where)
    assert message.startswith(f"position 'broken' of gptkit-broken==0.1 failed in {method}: {expected} ({__file__}:")
    assert not result


def test_method_with_a_wrong_signature_is_named() -> None:
    result = errors(position="misdeclared")
    whose = "position 'misdeclared' of gptkit-broken==0.1 failed in"
    assert result["position"] == f"{whose} max_positions: TypeError: 'int' object is not callable"
    assert result["attention"].startswith(f"{whose} head_problems: TypeError: ")


def test_resolving_to_none_is_reported() -> None:
    (message,) = errors(position={"name": "broken", "fails": "nothing"}).values()
    assert (
        message == "position 'broken' of gptkit-broken==0.1 failed in resolved: TypeError: it returned NoneType, not a spec"
    )


def test_innermost_component_is_named_and_located_in_its_layer() -> None:
    layers = [{}, {"feedforward": {"name": "mlp", "activation": "inside"}}]
    result = errors(n_layers=2, layers=layers)
    assert list(result) == ["layers.1.feedforward.activation"]
    assert (
        "activation 'inside' of gptkit-broken==0.1 failed in resolved: RuntimeError: inside"
        in result["layers.1.feedforward.activation"]
    )


def test_unregistered_component_is_named_without_a_distribution() -> None:
    class Stray(Broken):
        name: Literal["stray"] = "stray"  # type: ignore[assignment]

    (message,) = errors(position=Stray(fails="problems")).values()
    assert message.startswith("position 'stray' failed in problems: ValueError: no problems")


def test_problems_that_are_not_problems_are_reported() -> None:
    (message,) = errors(position={"name": "broken", "fails": "message"}).values()
    assert (
        "failed in problems: TypeError: it yielded 'the message alone', not a Problem; write: yield Problem((), message)"
        in message
    )


def test_unknown_attribute_is_located_in_the_component() -> None:
    (message,) = errors(position={"name": "broken", "fails": "attribute"}).values()
    assert "failed in problems: AttributeError: 'Broken' object has no attribute 'nothing'" in message
    assert f"({__file__}:" in message
