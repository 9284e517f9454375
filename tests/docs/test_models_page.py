"""The page of families and released models."""

from __future__ import annotations

from gptkit.core.registry import Registry
from gptkit.docs.models import page
from gptkit.presets.catalog import groups


def test_page_lists_every_family_and_released_model(builtin: Registry) -> None:
    lines = page(builtin).splitlines()
    for name, entry in builtin.entries("family").items():
        (row,) = [line for line in lines if line.startswith(f"| [{name}](components/family/{name}.md) |")]
        assert f"`{entry.cls.model_type}`" in row  # type: ignore[attr-defined]
        assert f"`{entry.cls.architecture}`" in row  # type: ignore[attr-defined]
    for name in groups()["released models"]:
        (row,) = [line for line in lines if line.startswith(f"| `{name}` |")]
        parameters = row.split("|")[2].strip()
        assert int(parameters.replace(",", "")) > 10**8


def test_numbers_equal_those_of_the_specs(builtin: Registry) -> None:
    assert "| `qwen3-0.6b` | 596,049,920 | norms of each head's queries and keys |" in page(builtin).splitlines()
