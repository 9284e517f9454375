"""The registry passed to a call is used at every depth instead of the installed one.

The components of these tests are in a registry that differs from the default one in two ways: it has norms that the default
one lacks, and lacks a norm that the default one has.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
from torch import nn

import gptkit
from gptkit.components import plugin as built_in_components
from gptkit.components.norm.rms import RMSNormSpec
from gptkit.core.component import component
from gptkit.core.errors import SpecError
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry, default_registry
from gptkit.docs.conformance import page
from gptkit.docs.pages import pages
from gptkit.kinds import plugin as built_in_kinds
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.reflect.describe import describe
from gptkit.reflect.schema import json_schema
from gptkit.runs.opening import open_spec
from gptkit.runs.spec import ExperimentSpec
from gptkit.testing import instances, run_checks
from tests.support.fake_plugins import FakeDistribution, FakeEntryPoint, plugin


class QuietSpec(RMSNormSpec):
    """Norm that is registered in the registry of these tests only."""

    name: Literal["quiet"] = "quiet"  # type: ignore[assignment]


class WrappedSpec(NormSpec):
    """Feed-forward with a norm that is registered in the registry of these tests only."""

    name: Literal["wrapped"] = "wrapped"
    inner: NormSpec = component("quiet", description="The norm inside.")

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        return self.inner.build(context, dim=dim)


class WithoutLayerNorm:
    """The built-in components without the norm `layer`."""

    @staticmethod
    @hookimpl
    def gptkit_components() -> list[Any]:
        return [cls for cls in built_in_components.gptkit_components() if cls.component_name() != "layer"]


def own(name: str, module: Any) -> FakeEntryPoint:
    return FakeEntryPoint(name, name, FakeDistribution("gptkit", gptkit.__version__), lambda: module)


@pytest.fixture(scope="module")
def registry() -> Registry:
    entry_points = [own("kinds", built_in_kinds), own("components", WithoutLayerNorm)]
    return Registry([*entry_points, plugin("gptkit-quiet", [QuietSpec, WrappedSpec])], disabled=())


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if the default registry is asked for a component that only the given one has."""
    original = Registry.entry

    def entry(self: Registry, kind: str, name: str) -> Any:
        assert self is not default_registry() or name not in ("quiet", "wrapped"), (
            f"what is installed was asked for {name!r}"
        )
        return original(self, kind, name)

    monkeypatch.setattr(Registry, "entry", entry)


def spec(norm: Any) -> dict[str, Any]:
    attention = {"name": "multi-head", "n_heads": 2, "qk_norm": norm}
    layers = [{}, {"norm": norm, "attention": {"qk_norm": norm}}]
    model = {"d_model": 16, "context_length": 8, "norm": norm, "attention": attention, "layers": layers, "vocab_size": 300}
    return {"tokenizer": "byte", "model": model}


def test_opening_and_building_use_the_given_registry(registry: Registry) -> None:
    opened = open_spec(spec("wrapped"), ["model.final_norm=quiet"], registry=registry).spec
    layer = opened.model.layer_specs()[1]
    assert layer.norm == layer.attention.qk_norm == WrappedSpec(inner=QuietSpec())  # type: ignore[attr-defined]
    assert opened.model.final_norm == QuietSpec()
    model = gptkit.build(spec("wrapped"), registry=registry)
    assert model.spec.layer_specs()[1].norm == WrappedSpec(inner=QuietSpec())


def test_errors_suggest_names_of_the_given_registry(registry: Registry) -> None:
    with pytest.raises(SpecError) as caught:
        open_spec(spec("quite"), registry=registry)
    assert {problem.dotted for problem in caught.value.problems} >= {"model.norm", "model.attention.qk_norm"}
    assert all("did you mean 'quiet'?" in problem.message for problem in caught.value.problems)
    with pytest.raises(SpecError, match="unknown norm 'layer'"):
        open_spec(spec("layer"), registry=registry)
    assert open_spec(spec("layer")).spec.model.norm.name == "layer"


def test_schema_uses_the_given_registry(registry: Registry) -> None:
    names = json_schema(ExperimentSpec, registry)["$defs"]["kind.norm"]["anyOf"][0]["enum"]
    assert {"quiet", "wrapped"} < set(names)
    assert "layer" not in names


@pytest.mark.slow
def test_descriptions_and_pages_use_the_given_registry(registry: Registry) -> None:
    assert "inner: quiet" in describe(registry.entry("norm", "wrapped"), registry).full_snippet
    result = pages(registry, root=ExperimentSpec, figures=False)
    assert "components/norm/wrapped.md" in result
    assert "components/norm/layer.md" not in result
    text = page(registry, ["norm"])
    assert "| [wrapped]" in text
    assert "**✗**" not in text.partition("| [quiet]")[2].partition("\n")[0]


def test_conformance_kit_uses_the_given_registry(registry: Registry) -> None:
    for cls in (QuietSpec, WrappedSpec):
        for each in instances(cls, registry):
            assert [str(result) for result in run_checks(each, registry=registry) if not result.ok] == []
