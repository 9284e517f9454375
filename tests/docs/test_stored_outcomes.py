"""Stored outcomes of the conformance checks: they are those that are measured, and used only where they are current."""

from __future__ import annotations

import importlib
import json
import types
from pathlib import Path
from typing import Any, Literal

import pytest

from gptkit.components.schedule.constant import ConstantSpec
from gptkit.core.component import Component
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry, default_registry
from gptkit.docs import digests
from gptkit.docs.checked import Checking, outcomes_of
from gptkit.docs.outcomes import stored
from gptkit.testing import KNOWN_FAILURES, checks_for
from tests.support.plugin_registry import registry_of

NAME = ("schedule", "cosine")


def data() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(stored.STORED.read_text(encoding="utf-8"))
    return result


def named(registry: Registry) -> list[tuple[str, str]]:
    return [(kind, name) for kind in registry.kinds() for name in registry.names(kind)]


@pytest.fixture(scope="module")
def builtin() -> Registry:
    """The built-in components of all kinds."""
    return registry_of()


@pytest.fixture
def all_current(builtin: Registry, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], dict[str, str]]:
    """The stored outcomes, as if neither sources nor libraries had changed since they were measured."""
    known = data()

    def sources(cls: type[Component], registry: Registry) -> str | None:
        return known.get(f"{cls.kind} {cls.component_name()}", {}).get("sources")  # type: ignore[no-any-return]

    monkeypatch.setattr(stored, "own_sources", sources)
    monkeypatch.setattr(stored, "library_versions", lambda: known["libraries"])
    return stored.current(builtin)


def test_every_built_in_component_is_stored(builtin: Registry, all_current: dict[tuple[str, str], dict[str, str]]) -> None:
    assert sorted(all_current) == sorted(named(builtin)), "run python -m gptkit.docs.remeasure conformance"
    for (kind, name), outcomes in all_current.items():
        checks = [check.name for check in checks_for(kind, builtin) if not check.slow]
        known = KNOWN_FAILURES.get(f"{kind} {name}", {})
        assert outcomes or known, f"{kind} {name}"  # without instances, nothing is checked
        assert list(outcomes) == (checks if outcomes else [])
        assert "expected" not in outcomes.values()


@pytest.mark.parametrize("step", [pytest.param(6, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("kind", list(default_registry().kinds()))
def test_stored_outcomes_are_those_that_are_measured(
    kind: str, step: int, builtin: Registry, all_current: dict[tuple[str, str], dict[str, str]]
) -> None:
    for name in sorted(builtin.names(kind))[::step] if kind in builtin.kinds() else ():  # not a kind of a plugin
        again = outcomes_of(builtin, kind, name, KNOWN_FAILURES.get(f"{kind} {name}", {}))
        assert again == all_current[kind, name], f"{name}: run python -m gptkit.docs.remeasure conformance"


@pytest.mark.slow
def test_most_stored_outcomes_are_current() -> None:
    """The pages are made fast only if few components must be checked for them."""
    registry = registry_of()
    stale = set(named(registry)) - set(stored.current(registry))
    assert len(stale) < 0.2 * len(named(registry)), "run python -m gptkit.docs.remeasure conformance"


@pytest.fixture
def written(tmp_path: Path, builtin: Registry, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The content of a stored file with one component; `use` writes it."""
    kind, name = NAME
    checks = [check.name for check in checks_for(kind, builtin) if not check.slow]
    entry = {"sources": digests.own_sources(builtin.component(kind, name), builtin), "outcomes": "+" * len(checks)}
    monkeypatch.setattr(stored, "STORED", tmp_path / "measured.json")
    return {"libraries": stored.library_versions(), kind: checks, f"{kind} {name}": entry}


def use(content: object) -> None:
    stored.STORED.write_text(json.dumps(content), encoding="utf-8")


def test_current_outcomes_are_not_computed(
    builtin: Registry, written: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(written)
    assert stored.current(builtin) == {NAME: dict.fromkeys(written["schedule"], "passed")}
    computed: list[str] = []
    monkeypatch.setattr("gptkit.docs.checked.outcomes_of", lambda registry, kind, name, _: computed.append(name) or {})
    outcomes = Checking(builtin, ["schedule"]).outcomes()
    assert outcomes[NAME] == stored.current(builtin)[NAME]
    assert sorted(computed) == sorted(set(builtin.names("schedule")) - {"cosine"})


@pytest.mark.parametrize(
    "change",
    [
        {"libraries": {"torch": "1.0"}},
        {"schedule": ["another-check"]},
        {"schedule cosine": {"sources": "0", "outcomes": "+"}},
        {"schedule cosine": {"outcomes": "+"}},
        {"schedule cosine": "+"},
    ],
    ids=str,
)
def test_outcomes_that_are_not_current_are_not_used(
    builtin: Registry, written: dict[str, Any], change: dict[str, Any]
) -> None:
    use({**written, **change})
    assert stored.current(builtin) == {}


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_damaged_file_is_not_used(builtin: Registry, written: dict[str, Any], text: str) -> None:
    stored.STORED.write_text(text, encoding="utf-8")
    assert stored.current(builtin) == {}


class OtherSpec(ConstantSpec):
    """Schedule of a plugin."""

    name: Literal["other"] = "other"  # type: ignore[assignment]


def test_component_of_a_plugin_is_always_checked(written: dict[str, Any]) -> None:
    module = types.ModuleType("plugged")
    setattr(module, "gptkit_components", hookimpl(lambda: [OtherSpec]))  # noqa: B010
    registry = registry_of(plugged=lambda: module)
    entry = {**written["schedule cosine"], "sources": digests.own_sources(OtherSpec, registry)}
    use({**written, "schedule other": entry})
    assert list(stored.current(registry)) == [NAME]


def test_digest_changes_with_what_a_component_consists_of(
    tmp_path: Path, builtin: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "parts"
    (package / "modules").mkdir(parents=True)
    source = "from parts.helper import x\nfrom gptkit.components.schedule.constant import ConstantSpec as OwnSpec\n"
    source += "OwnSpec = type('OwnSpec', (OwnSpec,), {'__module__': __name__})\n"
    files = {
        "__init__.py": "",
        "own.py": source,
        "helper.py": "x = 1\n",
        "other.py": "",
        "modules/__init__.py": "",
        "modules/own.py": "",
    }
    for name, text in files.items():
        (package / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    cls = importlib.import_module("parts.own").OwnSpec

    def digest() -> str:
        for cached in (digests._file, digests._imports):
            cached.cache_clear()
        return digests.own_sources(cls, builtin)

    before = digest()
    (package / "other.py").write_text("y = 1\n", encoding="utf-8")
    assert digest() == before
    for name in ("own.py", "helper.py", "modules/own.py"):
        (package / name).write_text(files[name] + "# changed\n", encoding="utf-8")
        assert digest() != before, name
        before = digest()
