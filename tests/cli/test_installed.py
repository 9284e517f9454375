"""Commands about installed components and plugins."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from gptkit.core.registry import Registry, default_registry
from gptkit.kinds.norm import NormSpec
from tests.support.command_line import Call
from tests.support.fake_plugins import make, plugin


@pytest.fixture
def with_plugins(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Install a working, a broken and a disabled plugin in addition to the real ones."""

    def broken() -> object:
        sys.stdout.write("hello from the plugin")
        raise RuntimeError("its engine is missing")

    norm = make("nice", NormSpec, build=lambda self, context, *, dim: None)
    third_party = [
        plugin("gptkit-nice", [norm], version="2.1"),
        plugin("gptkit-sad", load=broken, version="0.3"),
        plugin("gptkit-off", [], version="1.0"),
    ]
    own = [entry for entry in importlib.metadata.entry_points(group="gptkit") if entry.dist and entry.dist.name == "gptkit"]
    registry = Registry([*own, *third_party], disabled=["gptkit-off"])
    monkeypatch.setattr("gptkit.core.registry.lookup._default", registry)
    return registry


def test_components_lists_every_kind_and_name(call: Call) -> None:
    words = set(call("components").stdout.replace(",", " ").split())
    registry = default_registry()
    assert {*registry.kinds(), *(name for kind in registry.kinds() for name in registry.names(kind))} <= words


def test_components_of_a_kind_have_descriptions(call: Call, with_plugins: Registry) -> None:
    text = " ".join(call("components", "position").stdout.split())
    assert text.startswith("Position encoding: the representation of the order of tokens.")
    assert "NoPE" in text
    assert "provided by" not in text
    assert "gptkit-nice==2.1" in call("components", "norm").stdout


def test_component_is_described(call: Call) -> None:
    text = call("components", "norm", "rms").stdout
    for part in ("norm rms", "Formula", "Shapes", "eps: float", "> 0", "https://arxiv.org/", "gptkit==", "rms.py"):
        assert part in text
    assert "  model:\n    norm: rms\n" in text


def test_every_component_can_be_shown_in_a_narrow_terminal(call: Call) -> None:
    registry = default_registry()
    for kind in registry.kinds():
        for name in registry.names(kind):
            result = call("components", kind, name, env={"COLUMNS": "60"})
            assert result.stdout.startswith(f"{kind} {name}\n")
            assert "\x1b" not in result.stdout


def test_unknown_names_get_a_suggestion(call: Call) -> None:
    assert "did you mean 'position'?" in call("components", "positon", code=2).stderr
    assert "did you mean 'rotary'?" in call("components", "position", "rotery", code=2).stderr


def test_plugins_show_versions_status_and_errors(call: Call, with_plugins: Registry) -> None:
    result = call("plugins")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["gptkit-nice==2.1", "gptkit-nice", "active", "1", "component"] in rows
    assert ["gptkit-sad==0.3", "gptkit-sad", "broken", "nothing"] in rows
    assert ["gptkit-off==1.0", "gptkit-off", "disabled", "nothing"] in rows
    assert "gptkit-sad==0.3 (fake_gptkit_sad): could not be imported: RuntimeError: its engine is missing" in result.stdout
    assert "Traceback" not in result.stdout
    assert "hello" not in result.stdout


def test_plugins_verbose_shows_the_traceback_behind_an_error(call: Call, with_plugins: Registry) -> None:
    text = call("plugins", "--verbose").stdout
    assert "Traceback" in text
    assert "hello from the plugin" in text
    assert "norm  nice" in text


def test_broken_built_in_components_are_reported(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> object:
        raise ImportError("no torch")

    monkeypatch.setattr("gptkit.core.registry.lookup._default", Registry([plugin("gptkit", load=broken)], disabled=[]))
    assert (
        "which is part of gptkit, could not be loaded: could not be imported: ImportError: no torch"
        in call("components", "norm", code=2).stderr
    )
