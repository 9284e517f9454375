"""The page of families, and the gallery of presets."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from gptkit.core.registry import Registry
from gptkit.docs.models import assets, page
from gptkit.presets.catalog import groups


@pytest.fixture(scope="module")
def text(builtin: Registry) -> str:
    return page(builtin)


def test_page_lists_every_family_and_released_model(builtin: Registry, text: str) -> None:
    lines = text.splitlines()
    for name, entry in builtin.entries("family").items():
        (row,) = [line for line in lines if line.startswith(f"| [{name}](components/family/{name}.md) |")]
        assert f"`{entry.cls.model_type}`" in row  # type: ignore[attr-defined]
        assert f"`{entry.cls.architecture}`" in row  # type: ignore[attr-defined]
    for name in groups()["released models"]:
        entry_text = text.partition(f'<section class="preset" id="{name}"')[2].partition("</section>")[0]
        sizes = re.search(r"([\d,]+) parameters · \d+ layers · width [\d,]+ · context [\d,]+<", entry_text)
        assert sizes, name
        assert int(sizes[1].replace(",", "")) > 10**8
        assert f"<code>gptkit new my.yaml --from {name}</code>" in entry_text
        assert f"spec-builder.html#preset={name}" in entry_text


def test_numbers_equal_those_of_the_specs(text: str) -> None:
    assert "596,049,920 parameters · 28 layers · width 1,024 · context 40,960" in text
    assert "<p>Norms of each head&#x27;s queries and keys</p>" in text


def test_every_preset_has_its_diagram(builtin: Registry, text: str) -> None:
    files = assets(builtin)
    assert set(re.findall(r'<img src="([^"]+)"', text)) == set(files)
    for drawn in files.values():
        assert ET.fromstring(drawn).tag.endswith("svg")
