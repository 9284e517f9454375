"""Examples on the handwritten pages are valid."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from pydantic import ValidationError
from ruamel.yaml import YAML

import gptkit
from gptkit.components import plugin as builtin_components
from gptkit.core.registry import Registry
from gptkit.docs.guide.figures import FIGURES, HOME, filled
from gptkit.files import merge
from gptkit.kinds import plugin as builtin_kinds
from gptkit.kinds.position import PositionSpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.nn.forward import Forward
from gptkit.testing import instances, run_checks

PAGES = Path(__file__).resolve().parents[2] / "docs"


def load(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


def test_table_of_overrides_is_correct() -> None:
    rows = re.findall(
        r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", (PAGES / "spec-files.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) == 3
    for below, over, result in rows:
        assert merge(load(below), load(over)) == load(result)


def test_the_pages_mask_pattern_works() -> None:
    page = (PAGES / "writing-a-component.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n([^`]*class FirstAndRecent.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(source, "page.py", "exec", dont_inherit=True), names)
    mask = Forward(torch.zeros(1, 6, dtype=torch.long)).mask(0, 6, pattern=names["FirstAndRecent"](1, 2))
    assert mask.dense()[0, 0].int().tolist()[3:] == [[1, 0, 1, 1, 0, 0], [1, 0, 0, 1, 1, 0], [1, 0, 0, 0, 1, 1]]


def test_the_formula_of_the_page_is_that_of_the_attention() -> None:
    page = (PAGES / "writing-a-component.md").read_text(encoding="utf-8")
    (source,) = re.findall(r'```python title="tests/test_formula\.py"\n(.*?)```', page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(source, "test_formula.py", "exec", dont_inherit=True), names)
    names["test_attention_equals_its_formula"]()


@pytest.mark.slow
def test_the_plugins_of_the_page_work(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (PAGES / "writing-a-component.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r'```python title="([\w/]+)\.py"\n(.*?)```', page, re.DOTALL))
    assert blocks.pop("tests/test_formula")
    assert list(blocks) == ["gptkit_cube", "gptkit_sandwich", "gptkit_turning", "tests/test_sandwich", "gptkit_leaky"]
    assert len([line for line in blocks["gptkit_cube"].splitlines() if line]) == 9
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
            point("turning", "gptkit-turning", modules["gptkit_turning"]),
            point("leaky", "gptkit-leaky", modules["gptkit_leaky"]),
        ],
        (),
    )
    assert not [plugin.error for plugin in registry.plugins() if plugin.error]
    modules["tests/test_sandwich"].test_the_papers_formula()
    tests = list(modules["tests/test_sandwich"].test_conformance.pytestmark[0].args[1])
    specs = [
        registry.component("schedule", "cube")(name="cube"),
        *{id(test.values[0]): test.values[0] for test in tests}.values(),
    ]
    assert len(specs) == 3
    specs += instances(registry.component("position", "turning"))
    assert len(specs) == 5
    for spec in [*specs, *instances(registry.component("attention", "leaky"))]:
        assert not [f"{result.check.name}: {result.message}" for result in run_checks(spec) if not result.ok]

    with pytest.raises(ValidationError, match="choose at most 48, the context length") as refused:
        model_with(specs[-1].replace(slowest=50))
    assert refused.value.errors()[0]["loc"] == ("position", "slowest")
    starts = dict(model_with(specs[-1]).named_parameters())
    (rates,) = [parameter for name, parameter in starts.items() if name.endswith("rates_P")]  # shared by the layers
    torch.testing.assert_close(rates, 20 ** -torch.linspace(0, 1, 4))


def model_with(position: PositionSpec) -> GPT:
    """Return a model of two layers with fewer key heads than query heads."""
    attention = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 8}
    sizes = {"d_model": 32, "n_layers": 2, "context_length": 48, "attention": attention}
    model = GPT(ModelSpec.model_validate({**sizes, "position": position}), 11)
    ids = torch.arange(20).view(2, 10) % 11
    logits = model.eval()(ids, left_padding_B=torch.tensor([0, 3])).logits
    alone = model(ids[1:, 3:]).logits
    torch.testing.assert_close(logits[1:, 3:], alone, atol=1e-5, rtol=1e-4)
    return model


def test_figures_of_the_guided_path_are_drawn() -> None:
    used = [name for page in PAGES.rglob("*.md") for name in re.findall('data-figure="(.+?)"', page.read_text())]
    assert sorted(used) == sorted(FIGURES)
    for name, draw in FIGURES.items():
        drawn = ElementTree.fromstring(draw())
        assert (drawn.find("figcaption") is not None) == (name != "home")
        assert "\n\n" not in draw(), "Markdown would end the block"
        assert filled(f'<figure data-figure="{name}"></figure>').startswith("<figure class=")


def test_home_page_draws_its_spec() -> None:
    (text, *_) = re.findall(r"```yaml\n(.*?)```", (PAGES / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    assert gptkit.open_spec(load(text)).spec == gptkit.open_spec(HOME).spec


def test_table_of_plugins_lists_all_of_their_components() -> None:
    page = (PAGES / "more-plugins.md").read_text(encoding="utf-8")
    plugins = sorted(path for path in (PAGES.parent / "plugins").iterdir() if (path / "pyproject.toml").is_file())
    assert len(plugins) >= 5
    for plugin in plugins:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{plugin.name}` |")]
        sources = [file for file in plugin.rglob("*.py") if "tests" not in file.parts]
        names = [name for file in sources for name in re.findall(r'^    name: Literal\["(.+?)"\]', file.read_text(), re.M)]
        assert all(f"`{name}`" in row for name in names), (plugin.name, names)
