"""A component of a plugin that cannot be evaluated has a page with notes; that of a built-in one is an error."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from gptkit.core.errors import GptkitError
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.docs import parts
from gptkit.docs.component_page import Measurements, component_page
from gptkit.docs.parts import thumbnail
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.callback import Callback, CallbackSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.reflect.describe import describe
from tests.support.plugin_registry import registry_of


class _Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel")


class BrokenActivationSpec(ActivationSpec):
    """An activation whose module raises an error."""

    name: Literal["broken"] = "broken"

    def build(self, context: BuildContext) -> nn.Module:
        return _Broken()


class BrokenNormSpec(NormSpec):
    """A norm whose build raises an error."""

    name: Literal["broken"] = "broken"

    def build(self, context: BuildContext, *, dim: int) -> nn.Module:
        raise RuntimeError("no such norm")


class SilentSpec(CallbackSpec):
    """A callback that changes nothing that a figure shows."""

    name: Literal["silent"] = "silent"

    def build(self) -> Callback:
        return Callback()


class Plugin:
    @staticmethod
    @hookimpl
    def gptkit_components() -> list[type]:
        return [BrokenActivationSpec, BrokenNormSpec, SilentSpec]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_of(broken_plugin=lambda: Plugin)


@pytest.mark.parametrize(
    ("kind", "name", "note"),
    [
        ("activation", "broken", "RuntimeError: no such kernel. Run `gptkit plugin check broken-plugin`"),
        ("norm", "broken", "RuntimeError: no such norm. Run `gptkit plugin check broken-plugin`"),
        ("callback", "silent", "no configuration changes a training or measures anything. Give it `examples` that do."),
    ],
)
def test_page_of_a_plugin_has_a_note_where_evaluation_fails(registry: Registry, kind: str, name: str, note: str) -> None:
    doc = describe(registry.entry(kind, name), registry)
    page = component_page(registry, doc, Measurements(relations=False))
    assert '!!! warning "The figure could not be computed"' in page
    assert note in page
    assert "## Fields" in page
    assert thumbnail(registry.component(kind, name), registry) == ""


def test_page_of_a_plugin_has_a_note_where_sizes_cannot_be_measured(registry: Registry) -> None:
    doc = describe(registry.entry("norm", "broken"), registry)
    assert '!!! warning "The sizes could not be computed"' in component_page(registry, doc, Measurements(relations=False))


def test_figure_of_a_built_in_component_that_fails_is_an_error(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise GptkitError("the figure could not be drawn")

    monkeypatch.setattr(parts, "figure", failing)
    with pytest.raises(GptkitError):
        parts.drawn(registry.component("norm", "rms"), registry)
    with pytest.raises(GptkitError):
        thumbnail(registry.component("norm", "rms"), registry)
