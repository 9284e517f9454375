"""Lazy components: declarations equal the modules' definitions; a failed import affects its component only."""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import pytest

import gptkit.components
import gptkit.engines
import gptkit.interop.families
import gptkit.interop.formats
from gptkit.components import plugin as built_in
from gptkit.core.component import Component
from gptkit.core.errors import CollisionError, RegistryError
from gptkit.core.lazy import LazyComponent, declared_in
from gptkit.core.registry import Plugin, Registry
from gptkit.interop import plugin as interop
from tests.support.fake_plugins import Mixer, Norm, make, plugin, registry

LAZY = LazyComponent("norm", "mine", "lazy_plugin:Mine")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An importable module `lazy_plugin` for classes that lazy components refer to."""
    made = ModuleType("lazy_plugin")
    monkeypatch.setitem(sys.modules, "lazy_plugin", made)
    return made


def record(of: Registry) -> Plugin:
    [record] = [plugin for plugin in of.plugins() if plugin.distribution == "other"]
    return record


# -- built-in components --------------------------------------------------------------------------------------------


def defined(packages: list[ModuleType]) -> Iterator[type[Component]]:
    """The concrete components that the modules of packages define, all imported."""
    for package in packages:
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if info.ispkg or ".modules." in info.name:
                continue
            module = importlib.import_module(info.name)
            for value in vars(module).values():
                own = isinstance(value, type) and issubclass(value, Component) and value.__module__ == module.__name__
                if own and "name" in value.__annotations__ and not inspect.isabstract(value):
                    yield value


@pytest.mark.parametrize(
    ("hook", "packages", "at_least"),
    [
        (built_in.gptkit_components, [gptkit.components, gptkit.engines], 90),
        (interop.gptkit_components, [gptkit.interop.families, gptkit.interop.formats], 35),
    ],
)
def test_declared_components_equal_those_defined_by_the_modules(hook: Any, packages: Any, at_least: int) -> None:
    declared = hook()
    classes = list(defined(packages))
    assert len(declared) >= at_least
    assert {lazy.location for lazy in declared} == {f"{cls.__module__}:{cls.__qualname__}" for cls in classes}
    for lazy in declared:
        lazy.load()  # raises where kind, name or aliases differ


def test_declarations_are_read_without_importing(tmp_path: Path) -> None:
    source = tmp_path / "norms.py"
    source.write_text(
        'raise ImportError("never imported")\n'
        "class Base(NormSpec):\n    size: int = 1\n\n"
        'class First(Base):\n    """A norm."""\n\n    name: Literal["first"] = "first"\n    size: int = 2\n'
        'class Second(Base):\n    name: Literal["second"] = "second"\n'
        '    aliases: ClassVar[tuple[str, ...]] = ("2nd", "two")\n\n'
        "def helper(): ...\n",
        encoding="utf-8",
    )
    assert list(declared_in(source, "package.norms", "norm")) == [
        LazyComponent("norm", "first", "package.norms:First"),
        LazyComponent("norm", "second", "package.norms:Second", ("2nd", "two")),
    ]


# -- lookup ----------------------------------------------------------------------------------------------------


def test_a_lazy_component_is_imported_on_its_first_lookup(module: ModuleType) -> None:
    installed = registry(plugin("other", [LAZY, LazyComponent("norm", "other", "a_module_that_is_nowhere:Other")]))
    assert installed.names("norm") == ["exact", "mine", "other", "plain"]
    module.Mine = make("mine")  # type: ignore[attr-defined]
    assert installed.component("norm", "mine") is module.Mine
    assert installed.entry("norm", "mine").plugin is record(installed)
    module.Mine = None  # type: ignore[attr-defined]
    assert installed.component("norm", "mine").component_name() == "mine"


def test_a_lazy_component_is_found_by_its_alias(module: ModuleType) -> None:
    module.Mine = make("mine", aliases=("former",))  # type: ignore[attr-defined]
    installed = registry(plugin("other", [LazyComponent("norm", "mine", "lazy_plugin:Mine", ("former",))]))
    with pytest.warns(DeprecationWarning, match="now called 'mine'"):
        assert installed.component("norm", "former") is module.Mine


def test_lazy_names_collide_as_others_do() -> None:
    installed = registry(plugin("one", [LAZY]), plugin("other", [make("mine")]))
    with pytest.raises(CollisionError, match=r"one==1\.0 and other==1\.0"):
        installed.component("norm", "mine")
    taken = registry(plugin("other", [LazyComponent("norm", "plain", "lazy_plugin:Mine")]))
    assert "is built in" in (record(taken).error or "")


@pytest.mark.parametrize(
    ("lazy", "error"),
    [
        (LazyComponent("nrom", "mine", "m:Mine"), "declared as 'nrom', which is not a registered kind"),
        (LazyComponent("norm", "Mine", "m:Mine"), "lower-case words joined by hyphens"),
    ],
)
def test_an_invalid_declaration_breaks_its_plugin(lazy: LazyComponent, error: str) -> None:
    installed = registry(plugin("other", [make("fine"), lazy]))
    assert record(installed).status == "broken"
    assert error in (record(installed).error or "")
    assert installed.names("norm") == ["exact", "plain"]


class Unfinished(Norm):
    name: Literal["mine"] = "mine"
    field: undefined_type = 1  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("location", "value", "reason"),
    [
        ("a_module_that_is_nowhere:Mine", None, "ModuleNotFoundError: No module named 'a_module_that_is_nowhere'"),
        ("lazy_plugin:Missing", None, "lazy_plugin:Missing is not a spec class; write module:Class"),
        ("lazy_plugin", None, "lazy_plugin is not a spec class"),
        ("lazy_plugin:Mine", make("yours"), "declared as ('norm', 'mine', ())"),
        ("lazy_plugin:Mine", make("mine", Mixer), "declared as ('norm', 'mine', ())"),
        ("lazy_plugin:Mine", make("mine", aliases=("old",)), "declared as ('norm', 'mine', ())"),
        ("lazy_plugin:Mine", type("Impostor", (Component,), {"kind": "norm"}), "does not define a name"),
        ("lazy_plugin:Mine", Unfinished, "name 'undefined_type' is not defined"),
    ],
)
def test_a_lazy_component_that_cannot_be_imported_affects_itself_only(
    module: ModuleType, caplog: pytest.LogCaptureFixture, location: str, value: Any, reason: str
) -> None:
    module.Mine = value  # type: ignore[attr-defined]
    installed = registry(plugin("other", [LazyComponent("norm", "mine", location), make("fine")]))
    for _ in range(2):  # the result is the same each time
        with pytest.raises(RegistryError) as caught:
            installed.component("norm", "mine")
        assert caught.value.message.startswith("norm 'mine' of other==1.0 could not be loaded: ")
        assert reason in caught.value.message
    assert record(installed).status == "active"
    assert reason in (record(installed).error or "")
    assert "Traceback" in (record(installed).detail or "")
    with caplog.at_level(logging.WARNING, logger="gptkit"):
        assert list(installed.entries("norm")) == ["exact", "fine", "plain"]
    assert "norm 'mine' of other==1.0 could not be loaded" in caplog.text


def test_output_of_a_lazy_import_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "loud_lazy_plugin.py").write_text("print('hello')\nraise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    installed = registry(plugin("other", [LazyComponent("norm", "mine", "loud_lazy_plugin:Mine")]))
    with pytest.raises(RegistryError, match="SystemExit: 3"):
        installed.component("norm", "mine")
    assert record(installed).printed == "hello\n"
    assert capsys.readouterr() == ("", "")


def test_a_class_with_an_invalid_field_breaks_its_plugin() -> None:
    """Schemas are built on first use, so the registry builds those of plugins to report their errors in time."""

    class Opaque:
        pass

    class Bad(Norm):
        name: Literal["bad"] = "bad"
        opaque: Opaque
        aliases: ClassVar[tuple[str, ...]] = ()

    installed = registry(plugin("other", [make("fine"), Bad]))
    assert record(installed).status == "broken"
    assert "PydanticSchemaGenerationError" in (record(installed).error or "")
    assert installed.names("norm") == ["exact", "plain"]
