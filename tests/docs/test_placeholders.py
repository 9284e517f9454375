"""Links of the handwritten files in a clone, and the placeholders of generated pages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from gptkit.core.registry import default_registry
from gptkit.docs import command_line, conformance, contracts, ejected, models, python_reference, spec_builder, spec_fields
from gptkit.docs.placeholders import is_placeholder, linked

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCES = [ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / "plugins").rglob("*.md")]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("placeholders", ROOT / "tools" / "placeholders.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_a_clone_lead_to_files() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in SOURCES
        for target in linked(page.read_text(encoding="utf-8"))
        if target and not (page.parent / target).exists()
    ]
    assert not dead


def test_links_are_found() -> None:
    text = 'A [b](c.md#d), [e](../f/g.md "t"), [h](https://i.org) [j](#k) ![l](m.svg)\n'
    text += '```text\n[no](n.md)\n```\n<img src="o.png">'
    assert list(linked(text)) == ["c.md", "../f/g.md", "m.svg", "o.png"]


def test_placeholders_are_those_that_the_tool_writes(script: ModuleType) -> None:
    assert script.present() == script.needed(), "run tools/placeholders.py"


def test_placeholders_stand_for_generated_pages_only(script: ModuleType) -> None:
    """A link with a typo would otherwise get a placeholder."""
    registry = default_registry()
    generated = {"components/index.md", "components/combinations.md", "plugins.md"}
    generated |= {f"components/{kind}/index.md" for kind in registry.kinds()}
    generated |= {f"components/{kind}/{name}.md" for kind in registry.kinds() for name in registry.names(kind)}
    generated |= {f"effects/{file.stem}.html" for file in (DOCS / "effects").glob("*.json")}
    modules = (command_line, conformance, contracts, ejected, models, python_reference, spec_builder, spec_fields)
    assert script.present().keys() <= generated | {module.PAGE for module in modules}


def test_the_first_line_marks_a_placeholder(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- Placeholder of a generated page. -->\n", encoding="utf-8")
    assert not is_placeholder(page)
    assert not is_placeholder(DOCS / "training.md")
    assert is_placeholder(DOCS / "components" / "index.md")


@pytest.mark.slow
def test_a_build_has_the_generated_pages_in_their_place(site: Path) -> None:
    for page in (p.relative_to(DOCS) for p in DOCS.rglob("*") if p.is_file() and is_placeholder(p)):
        text = (site / page.with_suffix(".html")).read_text(encoding="utf-8")
        assert "make serve          #" not in text
        assert "Placeholder of a generated" not in text
