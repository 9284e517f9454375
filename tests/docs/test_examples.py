"""What the hand-written pages show is so."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gptkit.components import plugin as builtin_components
from gptkit.experiments.spec import ExperimentSpec
from gptkit.files import merge, validate_data
from gptkit.kinds import plugin as builtin_kinds
from gptkit.registry import Registry
from gptkit.testing import run_checks

PAGES = Path(__file__).resolve().parents[2] / "docs"
SPECS = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in sorted(PAGES.glob("*.md"))
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


def load(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("text", SPECS)
def test_specs_are_valid(text: str, builtin: Registry) -> None:
    data = load(text) or {}
    assert isinstance(data, dict)
    validate_data({"model": {}, **data}, ExperimentSpec, builtin)


def test_the_table_of_overriding_is_right() -> None:
    rows = re.findall(
        r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", (PAGES / "spec-files.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) == 3
    for below, over, result in rows:
        assert merge(load(below), load(over)) == load(result)


def test_the_plugins_of_the_page_work(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (PAGES / "writing-a-component.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r'```python title="([\w/]+)\.py"\n(.*?)```', page, re.DOTALL))
    assert list(blocks) == ["gptkit_cube", "gptkit_sandwich", "tests/test_sandwich"]
    assert len(blocks["gptkit_cube"].splitlines()) == 9
    modules = {}
    for name, source in blocks.items():
        modules[name] = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, modules[name])
        exec(compile(source, f"{name}.py", "exec", dont_inherit=True), modules[name].__dict__)

    def point(name: str, distribution: str, what: object) -> types.SimpleNamespace:
        dist = types.SimpleNamespace(name=distribution, version="1.0")
        return types.SimpleNamespace(name=name, value=name, dist=dist, load=lambda: what)

    registry = Registry(
        [
            point("kinds", "gptkit", builtin_kinds),
            point("components", "gptkit", builtin_components),
            point("cube", "gptkit-cube", modules["gptkit_cube"]),
            point("sandwich", "gptkit-sandwich", modules["gptkit_sandwich"]),
        ],
        (),
    )
    assert not [plugin.fault for plugin in registry.plugins() if plugin.fault]
    modules["tests/test_sandwich"].test_the_papers_formula()
    tests = list(modules["tests/test_sandwich"].test_keeps_its_promises.pytestmark[0].args[1])
    specs = [
        registry.component("schedule", "cube")(name="cube"),
        *{id(test.values[0]): test.values[0] for test in tests}.values(),
    ]
    assert len(specs) == 3
    for spec in specs:
        assert not [f"{result.check.name}: {result.message}" for result in run_checks(spec) if not result.ok]


def test_commands_of_the_pages_exist() -> None:
    from gptkit.cli.main import app

    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    known |= {group.name or "" for group in app.registered_groups}
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES.glob("*.md"))
    used = set(re.findall(r"(?:^|`)gptkit ([a-z]+)", text, re.MULTILINE))
    assert len(used) > 5
    assert used <= known
