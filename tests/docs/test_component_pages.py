"""Sections of component pages: uses, checks, source, and the names of tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gptkit.core import walk
from gptkit.core.registry import Registry
from gptkit.docs import component_checks, models, relations
from gptkit.docs.component_page import Measurements, component_page
from gptkit.docs.pages import pages
from gptkit.docs.source_code import sources
from gptkit.docs.tensor_names import section
from gptkit.reflect.describe import describe
from gptkit.runs.opening import open_spec
from gptkit.runs.spec import ExperimentSpec
from gptkit.testing import checks_for
from tests.support.plugin_registry import registry_of


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The built-in components with families and formats."""
    return registry_of()


def page_of(registry: Registry, kind: str, name: str, outcomes: Mapping[str, str] | None = None) -> str:
    doc = describe(registry.entry(kind, name), registry)
    measured = Measurements(figures=False, sizes=False, checks=outcomes is not None)
    page = component_page(registry, doc, measured, ExperimentSpec)
    return component_checks.filled(page, registry, lambda: {(kind, name): outcomes or {}})


@pytest.mark.slow
def test_uses_are_those_of_the_specs(registry: Registry) -> None:
    of_presets = relations.uses_by_presets(registry)
    opened = {preset: open_spec(preset, registry=registry).spec for preset in relations.preset_specs(registry)}
    parts = {preset: {(each.kind, each.name) for _, each in walk.components(spec)} for preset, spec in opened.items()}
    for component in (("position", "alibi"), ("attention", "mamba2"), ("feedforward", "gated")):
        assert list(of_presets[component]) == [preset for preset, used in parts.items() if component in used]
    assert {"bloom", "mpt"} <= set(relations.uses_by_families(registry)["position", "alibi"])


def test_every_family_has_a_model(registry: Registry) -> None:
    assert not [name for name, some in relations.family_models(registry).items() if not some]


def test_page_lists_keys_families_and_presets(registry: Registry) -> None:
    page = page_of(registry, "position", "alibi")
    assert "Keys that take it: `model.position`" in page
    assert "[bloom](../family/bloom.md)" in page
    assert "[bloom-560m](../../models.md#bloom-560m)" in page
    page = page_of(registry, "norm", "rms")
    assert re.search(r'\?\?\? note "Families with it: \d{2,3}"', page)
    assert "`qk_norm` of attention" in page


def test_no_component_of_a_preset_is_missed(registry: Registry) -> None:
    of_presets = relations.uses_by_presets(registry)
    listed: dict[str, set[str]] = {}
    for (kind, name), presets in of_presets.items():
        for preset in presets if kind != "family" else ():
            listed.setdefault(preset, set()).add(name)

    def names(data: Any) -> Iterator[str]:
        children = data.values() if isinstance(data, Mapping) else data if isinstance(data, (list, tuple)) else ()
        if isinstance(data, Mapping) and isinstance(data.get("name"), str):
            yield data["name"]
        for child in children:
            yield from names(child)

    for preset, spec in relations.preset_specs(registry).items():
        data = spec.model_dump()
        data.pop("name")
        assert set(names(data)) <= listed[preset], preset
    assert "qwen3-30b-a3b" in of_presets["router", "softmax-top-k"]
    assert "finetune-low-rank" in of_presets["linear", "low-rank"]
    assert "finetune-low-rank" not in of_presets["attention", "multi-head"]


def test_family_lists_its_presets(registry: Registry) -> None:
    page = page_of(registry, "family", "gemma3n")
    assert "Presets of this family: [gemma3n-e4b](../../models.md#gemma3n-e4b)." in page
    of_presets = relations.uses_by_presets(registry)
    assert [name for name in registry.names("family") if not of_presets.get(("family", name))] == []
    assert '<a href="components/family/gemma3n.html">Family gemma3n</a>' in models.page(registry)


def test_links_to_presets_have_their_targets(registry: Registry) -> None:
    gallery = models.page(registry)
    targets = set(re.findall(r'<section class="preset" id="([^"]+)"', gallery))
    linked = {
        name
        for kind in ("norm", "attention", "tokenizer")
        for component in registry.names(kind)
        for name in re.findall(r"models\.md#([^)]+)\)", relations.uses(registry, kind, component, ExperimentSpec))
    }
    assert len(linked) > 50
    assert linked <= targets


def test_page_shows_each_check_with_its_outcome(registry: Registry) -> None:
    checks = [check for check in checks_for("norm") if not check.slow]
    outcomes = {check.name: "passed" for check in checks[:-2]} | {checks[-2].name: "skipped", checks[-1].name: "failed"}
    page = page_of(registry, "norm", "rms", outcomes)
    assert f'??? note "{len(checks) - 2} passed, 1 failed, 1 not applicable ({len(checks)} checks)"' in page
    for check, mark in zip(checks[-3:], ("✓", "·", "**✗**"), strict=True):
        assert f"    | {mark} | `{check.name}` |" in page
    assert "(../../conformance.md#norm)" in page
    assert "## Conformance" not in page_of(registry, "norm", "rms")


def test_known_failures_have_their_reason(registry: Registry) -> None:
    text = component_checks.section(registry, "data", "prepared", {"constructible": "expected"})
    assert "1 known failure" in text
    assert "Known failure: `constructible`, the path of tokens that only the user has." in text


def test_page_has_the_source_of_spec_and_module(registry: Registry) -> None:
    page = page_of(registry, "attention", "multi-head")
    assert "- Source: [`gptkit/components/attention/multi_head.py`](#source)" in page
    for file in ("gptkit/components/attention/multi_head.py", "gptkit/components/attention/modules/multi_head.py"):
        assert (f'??? abstract "{file}"' in page) == ("modules" not in file or "modules/multi_head" in page)
    text = sources(registry.component("feedforward", "mlp"))
    assert '??? abstract "gptkit/components/feedforward/modules/mlp.py"' in text
    assert "    class MLPSpec(FeedForwardSpec):" in text


def test_family_lists_the_names_of_its_tensors(registry: Registry) -> None:
    text = section(registry, "gpt2")
    assert "| `embedding.table.weight` | `transformer.wte.weight` |" in text
    assert "`transformer.h.*.attn.c_attn.weight`" in text
    assert "| `blocks.*." in section(registry, "mixtral")


def test_pages_without_measurements_are_pure(registry: Registry) -> None:
    page = pages(registry, figures=False)["components/norm/rms.md"]
    assert "## Use\n" not in page
    assert "## Sizes" not in page
    assert "## Source" in page


def test_page_of_a_plugin_component_has_its_sizes(with_plugins: Registry) -> None:
    page = pages(with_plugins, kinds=["norm"])["components/norm/halving.md"]
    assert "## Sizes\n\n| size | expression | example |" in page
    assert "| parameters | none | 0 |" in page
