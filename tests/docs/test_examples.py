"""What the hand-written pages show is so."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from gptkit.components import plugin as builtin_components
from gptkit.experiments.spec import ExperimentSpec
from gptkit.files import merge, validate_data
from gptkit.kinds import plugin as builtin_kinds
from gptkit.kinds.context import BuildContext
from gptkit.registry import Registry

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


def test_the_plugin_of_the_page_works() -> None:
    page = (PAGES / "writing-a-component.md").read_text(encoding="utf-8")
    found = re.search(r'```python title="(\w+)\.py"\n(.*?)```', page, re.DOTALL)
    assert found is not None
    module = types.ModuleType(found[1])
    exec(compile(found[2], f"{found[1]}.py", "exec", dont_inherit=True), module.__dict__)

    def point(name: str, distribution: str, what: object) -> types.SimpleNamespace:
        dist = types.SimpleNamespace(name=distribution, version="1.0")
        return types.SimpleNamespace(name=name, value=name, dist=dist, load=lambda: what)

    registry = Registry(
        [
            point("kinds", "gptkit", builtin_kinds),
            point("components", "gptkit", builtin_components),
            point("maxnorm", "gptkit-maxnorm", module),
        ],
        (),
    )
    spec = registry.component("norm", "max")(name="max")
    context = BuildContext(d_model=4, context_length=8, n_layers=1)
    made = spec.build(context, dim=4)  # type: ignore[attr-defined]
    torch.testing.assert_close(made(torch.tensor([1.0, -4.0, 2.0, 0.0])), torch.tensor([0.25, -1.0, 0.5, 0.0]))


def test_commands_of_the_pages_exist() -> None:
    from gptkit.cli.main import app

    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    known |= {group.name or "" for group in app.registered_groups}
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES.glob("*.md"))
    used = set(re.findall(r"(?:^|`)gptkit ([a-z]+)", text, re.MULTILINE))
    assert len(used) > 5
    assert used <= known
